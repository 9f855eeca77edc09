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

// The canonical digest (docs/format.md), fed page by page and part by part.
class MachineDigest {
 public:
  explicit MachineDigest(u64 ram_size) : ram_size_(ram_size) {}
  // Ascending, non-zero pages only.
  void add_page(u64 index, const Digest& content) {
    pages_.add_u64(index);
    pages_.add(content);
  }
  // Ascending by path. `state`: digest of the canonical CBOR of its state.
  void add_part(const std::string& path, const Digest& state);
  std::string result() const;

 private:
  u64 ram_size_;
  Hasher pages_;
  Hasher parts_;
};

}  // namespace stasis::snapshot
