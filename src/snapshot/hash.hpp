// XXH3-128 digests: one call, or bit by bit. Bytes are in XXH's canonical (big-endian) order.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "base/types.hpp"

struct XXH3_state_s;

namespace stasis::snapshot {

using Digest = std::array<u8, 16>;
Digest digest_of(Bytes bytes);
std::string hex(const Digest& digest);

class Hasher {
 public:
  Hasher();
  void add(Bytes bytes);
  void add_u64(u64 value);  // little-endian
  Digest result() const;    // of all so far; more may follow

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

// True when all 4096 bytes are zero.
bool is_zero_page(const u8* page);

// The content digest (docs/format.md), fed chunk by chunk and part by part.
class MachineDigest {
 public:
  explicit MachineDigest(u64 ram_size) : ram_size_(ram_size) {}
  // Ascending, chunks with a page that is not zero only. `content`: digest of the digests of those pages.
  void add_chunk(u64 chunk, u64 nonzero, const Digest& content);
  // Ascending by path. `state`: digest of the canonical CBOR of its state.
  void add_part(const std::string& path, const Digest& state);
  Digest result() const;

 private:
  u64 ram_size_;
  Hasher chunks_;
  Hasher parts_;
};

}  // namespace stasis::snapshot
