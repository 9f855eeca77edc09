// Snapshot files as the offline commands open them: one place for the opening, the RAM and the progress of both.
#pragma once

#include <string>

#include "cli/open_options.hpp"
#include "inspect/page_walk.hpp"
#include "inspect/symbols.hpp"
#include "snapshot/ram_image.hpp"
#include "snapshot/reader.hpp"

namespace stasis::cli {

// A line on standard error while it lives, if that is a terminal: "comparing 1.0 GiB of 2.0 GiB, …".
class ProgressLine {
 public:
  explicit ProgressLine(std::string what);
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine();
  snapshot::SaveProgress* get() { return &progress_; }

 private:
  std::string what_;
  bool terminal_, shown_ = false;
  u64 began_, last_;
  snapshot::SaveProgress progress_;
};

// `checked`: against its digests; packed RAM always is.
Result<snapshot::RamImage> load_ram(const snapshot::OpenSnapshot& snapshot, bool checked = true);

// "snapshot a.stasis": the object of errors.
std::string object_of(const snapshot::OpenSnapshot& snapshot);

Result<inspect::Symbols> load_symbols(const std::string& path);

// The first vCPU that is in 64-bit mode, else the first; `wanted` >= 0: that one.
Result<inspect::Vcpu> choose_vcpu(const snapshot::OpenSnapshot& snapshot, int wanted);

}  // namespace stasis::cli
