// UUIDs, and the canonical digest of a live machine.
#include "snapshot/image.hpp"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>

#include "base/error.hpp"
#include "snapshot/hash.hpp"
#include "snapshot/ram_hash.hpp"

namespace stasis::snapshot {

Uuid random_uuid() {
  Uuid out{};
  STASIS_ASSERT(::getrandom(out.data(), out.size(), 0) == static_cast<ssize_t>(out.size()));
  out[6] = static_cast<u8>((out[6] & 0x0f) | 0x40);  // RFC 9562, 5.4
  out[8] = static_cast<u8>((out[8] & 0x3f) | 0x80);
  return out;
}

std::string uuid_text(const Uuid& uuid) {
  std::string out;
  for (unsigned i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += fmt::format("{:02x}", uuid[i]);
  }
  return out;
}

std::string digest(const Image& image, const RamSource& ram) {
  const u64 pages = ram.size / kPageSize;
  STASIS_ASSERT(ram.size % kPageSize == 0 && ram.maybe_nonzero.size() == (pages + 63) / 64);
  MachineDigest out(ram.size);
  for (u64 chunk = 0; chunk < ram.maybe_nonzero.size(); ++chunk) {
    const u64 in_chunk = std::min(pages - chunk * kChunkPages, kChunkPages);
    const HashedChunk hashed = hash_chunk(ram.base + chunk * kChunkBytes, ram.maybe_nonzero[chunk] & (in_chunk == 64 ? ~0ull : (1ull << in_chunk) - 1));
    if (hashed.nonzero) out.add_chunk(chunk, hashed.nonzero, hashed.content);
  }
  std::vector<const PartRecord*> parts;
  for (const PartRecord& part : image.parts) parts.push_back(&part);
  std::ranges::sort(parts, {}, [](const PartRecord* part) { return std::string_view(part->path); });
  for (const PartRecord* part : parts) out.add_part(part->path, digest_of(cbor::encode(part->state)));
  return hex(out.result());
}

}  // namespace stasis::snapshot
