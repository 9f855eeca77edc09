// Saving to a file, atomically: the name either keeps its previous file or gets the whole new one.
#pragma once

#include "base/error.hpp"
#include "snapshot/image.hpp"

namespace stasis::snapshot {

struct SaveReport {
  u64 file_bytes = 0;     // length of the file
  u64 stored_bytes = 0;   // of them written; the rest is holes
  u64 pages_present = 0;  // pages of RAM that are not zero
  std::string root;       // root digest: names the content of this very file
  std::string digest;     // canonical digest of the machine, as digest() gives it
};

// path: absolute (a relative one is taken from the process's directory). Errors: usage (a directory, no such
// parent), busy (another save to the same name is under way), cancelled, host (disk full: says needed and free).
// After any error the previous file of that name is as it was and no temporary is left.
Result<SaveReport> save(const std::string& path, const Image& image, const RamSource& ram, SaveProgress* progress = nullptr);

}  // namespace stasis::snapshot
