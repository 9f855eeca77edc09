// Reading the RAM of a snapshot chunk by chunk, in any order and whatever its encoding: mapped, packed, encrypted, or partly
// in a parent.
#pragma once

#include <memory>

#include "snapshot/reader.hpp"

struct ZSTD_DCtx_s;

namespace stasis::snapshot {

// For one thread; many may read one snapshot.
class RamReader {
 public:
  // All outlive the reader. parent: of an incremental snapshot; null: pages that are there cannot be read.
  RamReader(const Source& source, const Decoded& decoded, const std::string& object, const OpenSnapshot* parent);
  explicit RamReader(const OpenSnapshot& snapshot);
  ~RamReader();

  // The pages of `wanted` (a bit each) of a chunk, to their places from `out` on; pages of zeros are written too.
  Result<> read(u64 chunk, u64 wanted, u8* out);
  // Only those that are held in this file.
  Result<> read_present(u64 chunk, u64 wanted, u8* out);

 private:
  struct Unpacked {
    u64 chunk = ~0ull;
    std::vector<u8> bytes;  // its present pages, one after the other
  };
  struct Free {
    void operator()(ZSTD_DCtx_s* context) const;
  };
  std::unexpected<Error> damaged(u64 chunk, std::string what) const;
  Result<> read_mapped(u64 chunk, u64 wanted, u8* out) const;
  Result<> read_packed(u64 chunk, u64 wanted, u8* out, Unpacked& slot);
  Result<> read_same_as(u64 chunk, u64 wanted, u8* out);
  Result<> unpack(u64 chunk, Unpacked& slot);

  const Source& source_;
  const Decoded& decoded_;
  const std::string& object_;
  std::unique_ptr<RamReader> parent_;
  Unpacked own_, target_;    // the chunk read last, and the one that a page was the same as
  std::vector<u8> stored_;   // a block as it is in the file
  std::unique_ptr<ZSTD_DCtx_s, Free> unpacker_;
};

}  // namespace stasis::snapshot
