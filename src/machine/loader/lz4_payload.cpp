// Unpacks LZ4 legacy frames. LZ4 Frame Format Description 1.6.3, "Legacy frame"; LZ4 Block Format Description.
#include "machine/loader/lz4_payload.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "machine/loader/guest_layout.hpp"

namespace stasis::loader {
namespace {

constexpr u32 kMagic = 0x184c'2102;
constexpr u64 kMostUnpacked = kGiB, kBlockMost = 8 * kMiB;

std::unexpected<Error> damaged(std::string why) {
  return fail(ErrorCode::bad_file, "kernel (bzImage)", "its packed kernel (LZ4) " + std::move(why),
              "the file is damaged; fetch or build it again");
}

// Lengths of 15 go on in bytes of 255 until a smaller one. False at the end of the block.
bool extend(Bytes block, u64& at, u64& length) {
  if (length != 15) return true;
  for (;;) {
    if (at >= block.size()) return false;
    const u8 more = block[at++];
    length += more;
    if (more != 255) return true;
  }
}

// Appends one unpacked block to `out`; matches stay inside the block. Empty text: well done.
std::string unpack_block(Bytes block, u64 most, std::vector<u8>& out) {
  const u64 begin = out.size();
  const auto room = [&] { return std::min(kBlockMost, most - begin) - (out.size() - begin); };
  u64 at = 0;
  while (at < block.size()) {
    const u8 token = block[at++];
    u64 literals = token >> 4, match = token & 15;
    if (!extend(block, at, literals) || literals > block.size() - at) return "has literals beyond a block's end";
    if (literals > room()) return "unpacks to more than it says";
    out.insert(out.end(), block.begin() + static_cast<std::ptrdiff_t>(at), block.begin() + static_cast<std::ptrdiff_t>(at + literals));
    at += literals;
    if (at == block.size()) return {};
    if (block.size() - at < 2) return "is cut inside a match";
    const u64 back = value_at<u16>(block, at);
    at += 2;
    if (back == 0 || back > out.size() - begin) return fmt::format("has a match {} bytes back, before its block", back);
    if (!extend(block, at, match)) return "is cut inside a match";
    match += 4;
    if (match > room()) return "unpacks to more than it says";
    const u64 start = out.size();
    out.resize(start + match);
    for (u64 i = 0; i < match; ++i) out[start + i] = out[start + i - back];  // may overlap itself
  }
  return {};
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
  for (u64 at = 4; at < payload.size();) {
    if (!holds(payload, at, 4)) return damaged("is cut inside a block's length");
    const u64 length = value_at<u32>(payload, at);
    at += 4;
    if (length == 0 || !holds(payload, at, length))
      return damaged(fmt::format("has a block of {} bytes where {} are left", length, payload.size() - at));
    if (std::string problem = unpack_block(payload.subspan(at, length), size, out); !problem.empty()) return damaged(std::move(problem));
    at += length;
  }
  if (out.size() != size) return damaged(fmt::format("unpacks to {} bytes, it says {}", out.size(), size));
  return out;
}

}  // namespace stasis::loader
