// Fuzz: unpacking of chunks, below the digests: any stored bytes under a good block header, clear and sealed.
//   Input: a byte of flags, the mask of present pages of chunk 0 (8 bytes), what is stored. Chunk 1 has pages that are
//   the same as those.
#include <bit>
#include <cstring>

#include "machines.hpp"
#include "snapshot/ram_reader.hpp"
#include "target.hpp"

using namespace stasis;
using namespace stasis::snapshot;

namespace {

struct Case {
  std::vector<u8> file;
  Decoded decoded;
};

Case case_of(u64 present, Bytes stored, bool sealed, bool lies) {
  static const Cipher cipher(fuzz::key(), Salt{1, 2, 3});
  Case out{.file = std::vector<u8>(8), .decoded = {}};
  std::vector<u8> body(stored.begin(), stored.end());
  if (sealed) {
    body.resize(stored.size() + Cipher::kOverhead);
    cipher.seal_chunk(0, stored, body);
    out.decoded.cipher = cipher;
    if (lies && !stored.empty()) body[0] ^= 1;
  }
  BlockHeader header{.chunk = 0, .stored = static_cast<u32>(body.size())};
  header.digest = block_digest(header, body);
  const auto bytes = to_bytes(header);
  out.file.insert(out.file.end(), bytes.begin(), bytes.end());
  out.file.insert(out.file.end(), body.begin(), body.end());
  RamIndex& index = out.decoded.ram;
  index = {.encoding = Encoding::packed, .pages = 128};
  index.chunks.push_back({.nonzero = present, .present = present, .block = 8, .stored_bytes = header.stored});
  index.chunks.push_back({.nonzero = 3, .same_as = 3});
  const u64 first = static_cast<u64>(std::countr_zero(present)), last = 63 - static_cast<u64>(std::countl_zero(present));
  index.same_as = {first, last};
  index.for_lookup();
  out.decoded.image.ram_size = index.pages * kPageSize;
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size < 10 || size > kChunkBytes) return 0;
  u64 present;
  std::memcpy(&present, data + 1, sizeof present);
  if (data[0] & 1) present &= 0xf;  // few pages are reached sooner
  if (!present) present = 1;
  const Bytes stored(data + 9, size - 9);
  const bool sealed = data[0] & 2, lies = data[0] & 4;
  const Case made = case_of(present, stored, sealed, lies);
  const testing::MemorySource source(made.file);
  const std::string object = "fuzz";
  RamReader reader(source, made.decoded, object, nullptr);
  static std::vector<u8> first(kChunkBytes), second(kChunkBytes);  // one allocation for all inputs
  const u64 wanted = present | 1ull << 7 | 1ull << 63, zeros = wanted & ~present;
  const auto direct = reader.read(0, wanted, first.data());
  FUZZ_LAW(!(direct && sealed && lies));
  const auto same = RamReader(source, made.decoded, object, nullptr).read(1, 3, second.data());
  FUZZ_LAW(direct.has_value() == same.has_value());
  if (!direct) return FUZZ_LAW(direct.error().text().find("memory/ram") != std::string::npos), 0;
  for (u64 rest = zeros; rest; rest &= rest - 1)
    FUZZ_LAW(is_zero_page(&first[static_cast<u64>(std::countr_zero(rest)) * kPageSize]));
  FUZZ_LAW(std::memcmp(&second[0], &first[made.decoded.ram.same_as[0] * kPageSize], kPageSize) == 0);
  FUZZ_LAW(std::memcmp(&second[kPageSize], &first[made.decoded.ram.same_as[1] * kPageSize], kPageSize) == 0);
  return 0;
}
