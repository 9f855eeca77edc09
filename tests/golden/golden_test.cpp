// Snapshots that were written once and must load for ever: each is opened, is what it was, and runs to the end that it always
// had. The files in files/ are never written over; STASIS_UPDATE_GOLDEN=1 adds those of the current format that are missing.
//   The guest is counting_guest.S. Mapped files are kept as zstd frames: they are long, and nearly all holes.
#include <gtest/gtest.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "machine/machine.hpp"
#include "snapshot/ram_image.hpp"

namespace stasis {
namespace {

namespace fs = std::filesystem;
using snapshot::Encoding;
using snapshot::OpenOptions;
using snapshot::OpenSnapshot;

constexpr u64 kEarly = 60'000, kSaved = 90'000;  // instructions: of parents, and of all others

struct Golden {
  const char* name;
  u16 major;
  u64 retired;
  const char* content;  // content digest of the file
  const char* end;      // of its machine where the guest halts for ever; changes only with the layout of a part
};
constexpr char kEarlyContent[] = "1a49f0ab6a7074991f2572af5359f8d1", kSavedContent[] = "056fc2d4e355355baec5fe8a0dbb5e40",
               kEnd[] = "b325cd9900e3d9e994e4287cfa7a4a4a";
// RAM at that end: never changes.
constexpr char kEndOfRam[] = "b9e1760cfbd5d953dac318e20ba06700";
constexpr Golden kGolden[] = {
    {"format_0.1_mapped", 0, kSaved, "3ad445aa26e62d8bb303282824044525", "22f8616b3db6cdc42305b8da956d935d"},
    {"format_1.0_mapped", 1, kSaved, kSavedContent, kEnd},
    {"format_1.0_packed", 1, kSaved, kSavedContent, kEnd},
    {"format_1.0_encrypted", 1, kSaved, kSavedContent, kEnd},
    {"format_1.0_mapped_parent", 1, kEarly, kEarlyContent, kEnd},
    {"format_1.0_mapped_child", 1, kSaved, kSavedContent, kEnd},
    {"format_1.0_packed_parent", 1, kEarly, kEarlyContent, kEnd},
    {"format_1.0_packed_child", 1, kSaved, kSavedContent, kEnd},
};

std::vector<u8> content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(const fs::path& path, Bytes bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

template <class T>
T must(Result<T> result) {
  if (!result) std::fputs((result.error().text() + "\n").c_str(), stderr);
  STASIS_ASSERT(result);
  return std::move(*result);
}

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "stasis-golden-XXXXXX").string();
    STASIS_ASSERT(::mkdtemp(name.data()));
    path_ = name;
  }
  ~Folder() { fs::remove_all(path_); }
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

const fs::path kFiles = STASIS_GOLDEN_FILES;

OpenOptions opening() { return {.key = must(snapshot::Key::from_file(kFiles / "key"))}; }

// Skips idle time, up to a count or to where the guest halts for ever.
void run_to(Machine& machine, u64 count) {
  while (machine.retired() < count) {
    const MachineEvent event = machine.run(count);
    if (event == MachineEvent::attention) continue;
    if (event != MachineEvent::idle || machine.next_alarm() == Clock::kNever) return;
    machine.advance_idle(machine.next_alarm());
  }
}

std::string digest_of_ram(Machine& machine, const fs::path& scratch) {
  (void)must(machine.save(scratch, nullptr));
  const OpenSnapshot opened = must(snapshot::open(scratch));
  const snapshot::RamImage ram = must(snapshot::RamImage::load(opened));
  return snapshot::hex(snapshot::digest_of({ram.base(), ram.size()}));
}

// ---- as they are kept -----------------------------------------------------------------------------------------------

std::vector<u8> unpacked(const std::vector<u8>& packed) {
  const unsigned long long size = ::ZSTD_getFrameContentSize(packed.data(), packed.size());
  STASIS_ASSERT(size < 16 * kMiB);
  std::vector<u8> out(size);
  STASIS_ASSERT(::ZSTD_decompress(out.data(), out.size(), packed.data(), packed.size()) == size);
  return out;
}

void keep(const fs::path& from, const std::string& name, bool mapped) {
  const std::vector<u8> bytes = content(from);
  if (!mapped) return write(kFiles / (name + ".stasis"), bytes);
  std::vector<u8> packed(::ZSTD_compressBound(bytes.size()));
  const std::size_t size = ::ZSTD_compress(packed.data(), packed.size(), bytes.data(), bytes.size(), 19);
  STASIS_ASSERT(!::ZSTD_isError(size));
  write(kFiles / (name + ".stasis.zst"), Bytes(packed).first(size));
}

bool is_kept(const std::string& name) { return fs::exists(kFiles / (name + ".stasis")) || fs::exists(kFiles / (name + ".stasis.zst")); }

// A kept file under its own name, in a folder with all the others: parents are found beside their children.
fs::path laid_out(const Folder& folder, const std::string& name) {
  for (const auto& entry : fs::directory_iterator(kFiles)) {
    const fs::path& path = entry.path();
    if (path.extension() == ".zst") write(folder / path.stem().string(), unpacked(content(path)));
    if (path.extension() == ".stasis") fs::copy_file(path, folder / path.filename().string());
  }
  return folder / (name + ".stasis");
}

// ---- adding what is missing -----------------------------------------------------------------------------------------

struct Made {
  const char* name;
  u64 retired;
  Encoding encoding;
  bool sealed;
  const char* parent;
};
constexpr Made kMade[] = {
    {"format_1.0_mapped", kSaved, Encoding::mapped, false, nullptr},
    {"format_1.0_packed", kSaved, Encoding::packed, false, nullptr},
    {"format_1.0_encrypted", kSaved, Encoding::packed, true, nullptr},
    {"format_1.0_mapped_parent", kEarly, Encoding::mapped, false, nullptr},
    {"format_1.0_packed_parent", kEarly, Encoding::packed, false, nullptr},
    {"format_1.0_mapped_child", kSaved, Encoding::mapped, false, "format_1.0_mapped_parent"},
    {"format_1.0_packed_child", kSaved, Encoding::packed, false, "format_1.0_packed_parent"},
};

void make(const Made& what) {
  const Folder folder;
  const MachineConfig config{.memory_bytes = 2 * kMiB, .debug_exit = true, .start_time = 1'750'000'000};
  const auto machine = must(Machine::boot(config, {.kernel = content(STASIS_GOLDEN_GUEST)}, {}));
  run_to(*machine, what.retired);
  snapshot::SaveOptions options{.encoding = what.encoding};
  if (what.sealed) options.key = opening().key;
  std::optional<OpenSnapshot> parent;
  if (what.parent) options.parent = &parent.emplace(must(snapshot::open(laid_out(folder, what.parent))));
  (void)must(machine->save(folder / "made", nullptr, nullptr, options));
  keep(folder / "made", what.name, what.encoding == Encoding::mapped);
}

class Missing : public ::testing::Environment {
  void SetUp() override {
    if (!std::getenv("STASIS_UPDATE_GOLDEN")) return;
    for (const Made& what : kMade)
      if (!is_kept(what.name)) make(what);
  }
};
const auto* const kMissing = ::testing::AddGlobalTestEnvironment(new Missing);

// ---- the tests ------------------------------------------------------------------------------------------------------

class GoldenFile : public ::testing::TestWithParam<Golden> {};
INSTANTIATE_TEST_SUITE_P(All, GoldenFile, ::testing::ValuesIn(kGolden), [](const auto& kind) {
  std::string name = kind.param.name;
  std::ranges::replace(name, '.', '_');
  return name;
});
void PrintTo(const Golden& golden, std::ostream* out) { *out << golden.name; }

TEST_P(GoldenFile, holds_what_it_always_held) {
  const Folder folder;
  const OpenSnapshot opened = must(snapshot::open(laid_out(folder, GetParam().name), opening()));
  EXPECT_EQ(opened.format_major, GetParam().major);
  const auto found = snapshot::digest(opened);
  ASSERT_TRUE(found) << found.error().text();
  EXPECT_EQ(*found, GetParam().content);
}

TEST_P(GoldenFile, runs_to_the_end_it_always_had) {
  const Folder folder;
  const fs::path path = laid_out(folder, GetParam().name);
  const std::vector<u8> before = content(path);
  const auto restored = Machine::restore(path, {}, {}, opening());
  ASSERT_TRUE(restored) << restored.error().text();
  Machine& machine = **restored;
  EXPECT_EQ(machine.retired(), GetParam().retired);
  run_to(machine, ~0ull);
  EXPECT_EQ(machine.failure(), "");
  EXPECT_EQ(machine.next_alarm(), Clock::kNever) << "the guest has not come to its end";
  EXPECT_EQ(digest_of_ram(machine, folder / "scratch"), kEndOfRam);
  EXPECT_EQ(must(machine.digest()), GetParam().end);
  EXPECT_EQ(content(path), before);
}

// A list that forgets one would let it rot.
TEST(GoldenFiles, all_are_in_the_list) {
  for (const auto& entry : fs::directory_iterator(kFiles)) {
    std::string name = entry.path().filename();
    if (name == "key") continue;
    name.resize(name.rfind(".stasis"));
    EXPECT_NE(std::ranges::find(kGolden, name, &Golden::name), std::end(kGolden)) << name;
  }
}

}  // namespace
}  // namespace stasis
