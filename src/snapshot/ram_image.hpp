// The RAM of a snapshot as pages in memory, whatever its encoding in the file.
#pragma once

#include <vector>

#include "base/error.hpp"
#include "snapshot/reader.hpp"

namespace stasis::snapshot {

// Read-only. Where the file is mapped, pages come in as they are touched and are not checked against their digests.
class RamImage {
 public:
  static Result<RamImage> load(const OpenSnapshot& snapshot, SaveProgress* progress = nullptr);
  RamImage(RamImage&& other) noexcept;
  RamImage& operator=(RamImage&&) = delete;
  ~RamImage();

  const u8* base() const { return base_; }
  u64 size() const { return size_; }
  // One bit per page, 64 a word: clear where the page is zero.
  const std::vector<u64>& nonzero() const { return nonzero_; }
  RamSource source() const { return {base_, size_, nonzero_}; }

 private:
  RamImage() = default;
  u8* base_ = nullptr;
  u64 size_ = 0;
  std::vector<u64> nonzero_;
};

}  // namespace stasis::snapshot
