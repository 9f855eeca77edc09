// Digests over libxxhash, and the canonical digest of a machine.
#include "snapshot/hash.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "base/error.hpp"

namespace stasis::snapshot {
namespace {

Digest canonical(XXH128_hash_t hash) {
  XXH128_canonical_t bytes;
  XXH128_canonicalFromHash(&bytes, hash);
  Digest out;
  static_assert(sizeof bytes.digest == sizeof out);
  std::memcpy(out.data(), bytes.digest, sizeof out);
  return out;
}

void put_u64(u8* to, u64 value) {
  for (unsigned i = 0; i < 8; ++i) to[i] = static_cast<u8>(value >> (8 * i));
}

alignas(64) constexpr u8 kZeroPage[kPageSize] = {};
constexpr char kDomain[16] = "stasis digest 2";  // 15 characters and a zero byte

}  // namespace

Digest digest_of(Bytes bytes) { return canonical(XXH3_128bits(bytes.data(), bytes.size())); }

std::string hex(const Digest& digest) { return fmt::format("{:02x}", fmt::join(digest, "")); }

Hasher::Hasher() : state_(XXH3_createState()) {
  STASIS_ASSERT(state_);
  XXH3_128bits_reset(state_.get());
}

void Hasher::Free::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

void Hasher::add(Bytes bytes) { XXH3_128bits_update(state_.get(), bytes.data(), bytes.size()); }

void Hasher::add_u64(u64 value) {
  std::array<u8, 8> bytes;
  put_u64(bytes.data(), value);
  add(bytes);
}

Digest Hasher::result() const { return canonical(XXH3_128bits_digest(state_.get())); }

bool is_zero_page(const u8* page) { return std::memcmp(page, kZeroPage, kPageSize) == 0; }

void MachineDigest::add_chunk(u64 chunk, u64 nonzero, const Digest& content) {
  std::array<u8, 16 + sizeof content> bytes;  // at once: a large guest has many
  put_u64(bytes.data(), chunk);
  put_u64(bytes.data() + 8, nonzero);
  std::ranges::copy(content, bytes.begin() + 16);
  chunks_.add(bytes);
}

void MachineDigest::add_part(const std::string& path, const Digest& state) {
  parts_.add_u64(path.size());
  parts_.add({reinterpret_cast<const u8*>(path.data()), path.size()});
  parts_.add(state);
}

Digest MachineDigest::result() const {
  Hasher all;
  all.add({reinterpret_cast<const u8*>(kDomain), sizeof kDomain});
  all.add_u64(ram_size_);
  all.add(chunks_.result());
  all.add(parts_.result());
  return all.result();
}

}  // namespace stasis::snapshot
