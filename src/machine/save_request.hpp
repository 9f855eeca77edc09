// What is asked of a save, and what must be at hand before the guest stands still for it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/file_descriptor.hpp"
#include "snapshot/reader.hpp"
#include "snapshot/writer.hpp"

namespace stasis {

struct SaveRequest {
  std::string path{};             // absolute; of a FIFO when `stream`
  bool stream = false;            // written into the FIFO `path` without a seek; nothing is replaced
  bool confirm = false;           // a suspend into a stream: the machine ends only when Vm::confirm_save() says that all was taken
  snapshot::Encoding encoding = snapshot::Encoding::mapped;
  int level = 1;                  // packed only; see snapshot::SaveOptions
  std::string encrypt_key{};      // key file; empty: clear
  std::string incremental_from{}; // a snapshot, absolute path; empty: a whole one
  std::vector<std::string> parents{};  // files, or folders of files, where that one's own parents are looked for; absolute paths
  std::string decrypt_key{};      // key file of that one, when it is encrypted
  std::string compat{};           // release that shall be able to read it; empty: this one
};

// Everything that can fail or takes time without the guest: keys, the parent, the other end of a pipe.
struct PreparedSave {
  SaveRequest request;
  snapshot::SaveOptions options;  // `parent` points into `parent` below
  std::shared_ptr<const snapshot::OpenSnapshot> parent;
  FileDescriptor stream;
};
Result<PreparedSave> prepare_save(SaveRequest request);

}  // namespace stasis
