// Opening what a save needs.
#include "machine/save_request.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

#include "machine/releases.hpp"

namespace stasis {
namespace {

// The reader must be there already: a save must not wait for one with its guest standing still.
Result<FileDescriptor> open_fifo(const std::string& path) {
  FileDescriptor fifo(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  if (!fifo && errno == ENXIO) return fail(ErrorCode::usage, path, "nobody reads from this FIFO", "open it for reading before the request");
  if (!fifo) return fail_errno(path, "open for writing", errno);
  struct stat info;
  if (::fstat(fifo.get(), &info) != 0 || !S_ISFIFO(info.st_mode)) return fail(ErrorCode::usage, path, "is no FIFO", "make one with mkfifo, or save to a file");
  return fifo;
}

// A child that took the place of its own parent would have destroyed it.
Result<> check_not_an_ancestor(const std::string& path, const snapshot::OpenSnapshot& parent) {
  if (!snapshot::is_file_of(parent, path)) return {};
  return fail(ErrorCode::usage, path, "is an ancestor of the incremental snapshot that should replace it", "save to another name");
}

}  // namespace

Result<PreparedSave> prepare_save(SaveRequest request) {
  PreparedSave out{.request = std::move(request), .options = {}, .parent = nullptr, .stream = {}};
  const SaveRequest& asked = out.request;
  if (!asked.compat.empty()) STASIS_TRY(release_named(asked.compat));
  out.options.encoding = asked.encoding;
  out.options.level = asked.level;
  if (!asked.encrypt_key.empty()) {
    STASIS_TRY_SET(out.options.key, snapshot::Key::from_file(asked.encrypt_key));
  }
  if (!asked.incremental_from.empty()) {
    snapshot::OpenOptions open{.parents = asked.parents, .bulk = false};
    if (!asked.decrypt_key.empty()) {
      STASIS_TRY_SET(open.key, snapshot::Key::from_file(asked.decrypt_key));
    }
    STASIS_TRY_SET(auto parent, snapshot::open(asked.incremental_from, open));
    out.parent = std::make_shared<const snapshot::OpenSnapshot>(std::move(parent));
    out.options.parent = out.parent.get();
    STASIS_TRY(check_not_an_ancestor(asked.path, *out.parent));
  }
  if (asked.stream) {
    STASIS_TRY_SET(out.stream, open_fifo(asked.path));
  }
  return out;
}

}  // namespace stasis
