// Writes inputs to begin with: fuzz_seeds FOLDER makes FOLDER/TARGET/NAME for every target.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "machines.hpp"
#include "snapshot/bodies.hpp"
#include "snapshot/ram_index.hpp"

using namespace stasis;
using namespace stasis::snapshot;

namespace {

std::filesystem::path folder;

void put(const char* target, const std::string& name, Bytes bytes) {
  std::filesystem::create_directories(folder / target);
  std::ofstream(folder / target / name, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

// The parts of a file that the smaller targets take.
void put_pieces(const std::string& name, const std::vector<u8>& file, bool incremental) {
  const auto opened = testing::open_memory(file);
  if (!opened) return;
  put("header", name, Bytes(file).first(kHeaderSize));
  put("header", name + "-commit", Bytes(file).last(kCommitSize));
  for (const SectionInfo& section : opened->sections) {
    const Bytes body = Bytes(file).subspan(section.offset, section.length);
    std::string flat = name + "-" + section.name;
    for (char& c : flat)
      if (c == '/') c = '.';
    put("header", flat, Bytes(file).subspan(section.offset - kSectionHeaderSize - align_up(section.name.size(), 8), kSectionHeaderSize + align_up(section.name.size(), 8)));
    if (section.name == kRam) {
      if (opened->ram.encoding == Encoding::mapped) continue;
      put("header", flat + "-block", body.first(kBlockHeaderSize));
      std::vector<u8> chunk{1, 6, 0, 0, 0, 0, 0, 0, 0};
      chunk.insert(chunk.end(), body.begin() + kBlockHeaderSize, body.begin() + kBlockHeaderSize + opened->ram.chunks[0].stored_bytes);
      put("chunks", flat, chunk);
      chunk[0] = 3;
      put("chunks", flat + "-sealed", chunk);
      continue;
    }
    put("cbor", flat, body);
    if (section.name != kRamIndex) continue;
    std::vector<u8> index{static_cast<u8>(incremental), 69, 0};
    index.insert(index.end(), body.begin(), body.end());
    put("index", name, index);
  }
}

void put_whole(const std::string& name, const std::vector<u8>& file) {
  put("whole", name, file);
  put("sections", name, file);
}

}  // namespace

int main(int count, char** words) {
  if (count != 2) return std::fputs("usage: fuzz_seeds FOLDER\n", stderr), 2;
  folder = words[1];
  testing::Ram ram = fuzz::ram();
  Image image = fuzz::image(ram);
  const SaveOptions packed{.encoding = Encoding::packed, .threads = 1};
  put_whole("packed", testing::encoded(image, ram, packed));
  put_pieces("packed", testing::encoded(image, ram, packed), false);
  put_whole("encrypted", testing::encoded(image, ram, {.encoding = Encoding::packed, .key = fuzz::key(), .threads = 1}));
  const testing::Ram page(1, {0});
  Image small = fuzz::image(page);
  put_whole("mapped", testing::encoded(small, page));
  put_pieces("mapped", testing::encoded(small, page), false);
  const auto parent = fuzz::parent();
  std::fill_n(ram.bytes.begin() + 3 * kPageSize, kPageSize, u8{0x44});
  std::fill_n(ram.bytes.begin() + 1 * kPageSize, kPageSize, u8{0});
  std::fill_n(ram.bytes.begin() + 68 * kPageSize, kPageSize, u8{0x44});
  ram.bits[0] |= 1 << 3, ram.bits[1] |= 1 << 4;
  image.notes = {{"2025-01-02T03:04:05Z", "stasis 1.0.0", "a word"}};
  image.foreign = {{"working-set", 4, {1, 2, 3}}};
  const auto child = testing::encoded(image, ram, {.encoding = Encoding::packed, .parent = parent.get(), .threads = 1});
  put("chain", "packed", child);
  put_whole("child", child);
  put_pieces("child", child, true);
  put("chain", "clean", testing::encoded(image, fuzz::ram(), {.encoding = Encoding::packed, .parent = parent.get(), .threads = 1}));
  put_whole("carried", testing::encoded(image, ram, packed));
  put_pieces("carried", testing::encoded(image, ram, packed), false);
}
