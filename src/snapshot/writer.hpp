// Saving a snapshot: to a file, atomically, so that the name either keeps its previous file or gets the whole new one; or
// to a pipe or socket.
#pragma once

#include <optional>

#include "base/error.hpp"
#include "snapshot/cipher.hpp"
#include "snapshot/image.hpp"
#include "snapshot/ram_index.hpp"

namespace stasis::snapshot {

struct OpenSnapshot;

inline constexpr int kMostLevel = 19;

struct SaveOptions {
  Encoding encoding = Encoding::mapped;
  int level = 1;                 // packed: zstd's 1 to kMostLevel; 0: not compressed
  std::optional<Key> key;        // encrypts; needs the packed encoding
  // An incremental snapshot: only what differs from this one is stored. Of the same size of RAM.
  const OpenSnapshot* parent = nullptr;
  // Pages that may differ from the parent's, one bit per page; null: not known, all are compared.
  const std::vector<u64>* dirty = nullptr;
  // Where the RAM was read from, when that is a snapshot: it must be what that one's digests say, or it is refused (bad_file)
  // before the commit record.
  const OpenSnapshot* source = nullptr;
  unsigned threads = 0;          // 0: by the host's CPUs
};

struct SaveReport {
  u64 file_bytes = 0;     // length of the file
  u64 stored_bytes = 0;   // of them written; the rest is holes
  u64 pages_present = 0;  // pages of RAM that are held in the file
  u64 pages_nonzero = 0;  // pages of RAM that are not zero, wherever they are held
  std::string root;       // root digest: names this very file
  std::string digest;     // content digest of the machine, as digest() gives it
};

// path: absolute (a relative one is taken from the process's directory). Errors: usage (a directory, no such
// parent directory, options that exclude each other), busy (another save to the same name is under way), cancelled, host
// (disk full: says needed and free). After any error the previous file of that name is as it was and no temporary is left.
Result<SaveReport> save(const std::string& path, const Image& image, const RamSource& ram, SaveProgress* progress = nullptr,
                        const SaveOptions& options = {});

// To a descriptor that needs no seek. One with O_NONBLOCK can be cancelled while its reader stalls. What was written of a save that failed has no commit record: a reader calls it incomplete.
Result<SaveReport> save_stream(int fd, const std::string& name, const Image& image, const RamSource& ram, SaveProgress* progress = nullptr,
                               const SaveOptions& options = {});

}  // namespace stasis::snapshot
