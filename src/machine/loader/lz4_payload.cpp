// Unpacks LZ4 legacy frames: the walk over the blocks is ours, the blocks are liblz4's.
// LZ4 Frame Format Description 1.6.3, "Legacy frame".
#include "machine/loader/lz4_payload.hpp"

#include <fmt/format.h>
#include <lz4.h>

#include <memory>

#include "machine/loader/guest_layout.hpp"

namespace stasis::loader {
namespace {

constexpr u32 kMagic = 0x184c'2102;
constexpr u64 kMostUnpacked = kGiB, kBlockMost = 8 * kMiB, kPackedMost = LZ4_COMPRESSBOUND(kBlockMost);

std::unexpected<Error> damaged(std::string why) {
  return fail(ErrorCode::bad_file, "kernel (bzImage)", "its packed kernel (LZ4) " + std::move(why),
              "the file is damaged; fetch or build it again");
}

}  // namespace

bool looks_like_lz4(Bytes payload) { return holds(payload, 0, 8) && value_at<u32>(payload, 0) == kMagic; }

Result<std::vector<u8>> unpack_lz4(Bytes payload) {
  if (!looks_like_lz4(payload)) return damaged("does not start with its magic number");
  const u64 size = value_at<u32>(payload, payload.size() - 4);
  if (size > kMostUnpacked) return damaged(fmt::format("says it unpacks to {} bytes, allowed is up to {}", size, kMostUnpacked));
  payload = payload.first(payload.size() - 4);
  std::vector<u8> out;
  out.reserve(size);
  const auto unpacked = std::make_unique_for_overwrite<char[]>(kBlockMost);
  for (u64 at = 4; at < payload.size();) {
    if (!holds(payload, at, 4)) return damaged("is cut inside a block's length");
    const u64 length = value_at<u32>(payload, at);
    at += 4;
    if (length == 0 || length > kPackedMost || !holds(payload, at, length))
      return damaged(fmt::format("has a block of {} bytes where {} are left, allowed are up to {}", length, payload.size() - at, kPackedMost));
    const int got = ::LZ4_decompress_safe(reinterpret_cast<const char*>(&payload[at]), unpacked.get(), static_cast<int>(length),
                                          static_cast<int>(kBlockMost));
    if (got < 0) return damaged(fmt::format("has a damaged block at offset {}", at));
    if (static_cast<u64>(got) > size - out.size()) return damaged(fmt::format("unpacks to more than the {} bytes it says", size));
    out.insert(out.end(), unpacked.get(), unpacked.get() + got);
    at += length;
  }
  if (out.size() != size) return damaged(fmt::format("unpacks to {} bytes, it says {}", out.size(), size));
  return out;
}

}  // namespace stasis::loader
