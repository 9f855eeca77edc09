// Snapshots as files and streams: opening them, with their parents.
#include "snapshot/reader.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <utility>

#include "snapshot/format.hpp"
#include "snapshot/stream_source.hpp"

namespace stasis::snapshot {
namespace {

class FileSource : public Source {
 public:
  FileSource(int fd, u64 size, std::string name) : fd_(fd), size_(size), name_(std::move(name)) {}
  u64 size() const override { return size_; }
  Result<> read(u64 offset, MutableBytes out) const override { return read_exactly_at(fd_, out, offset, name_); }
  u64 next_data(u64 offset) const override {
    const off_t found = ::lseek(fd_, static_cast<off_t>(offset), SEEK_DATA);
    if (found >= 0) return static_cast<u64>(found);
    return errno == ENXIO ? size_ : offset;
  }

 private:
  int fd_;
  u64 size_;
  std::string name_;
};

struct Opened {
  FileDescriptor file;
  u64 size;
};

Result<Opened> open_regular(const std::string& path) {
  STASIS_TRY_SET(FileDescriptor file, open_file(path, O_RDONLY | O_NONBLOCK | O_NOCTTY));  // a FIFO must not block
  struct stat info;
  if (::fstat(file.get(), &info) != 0) return fail_errno(path, "stat", errno);
  if (S_ISDIR(info.st_mode)) return fail(ErrorCode::usage, path, "is a directory, not a snapshot", "name a file");
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::usage, path, "is no regular file", "copy the snapshot to a file first, or give '-' and pipe it in");
  return Opened{std::move(file), static_cast<u64>(info.st_size)};
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == path.npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

bool is_folder(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

Result<OpenSnapshot> open_alone(const std::string& path, const OpenOptions& options) {
  STASIS_TRY_SET(Opened opened, open_regular(path));
  const auto source = std::make_shared<const FileSource>(opened.file.get(), opened.size, path);
  STASIS_TRY_SET(Decoded decoded, decode(*source, path, options));
  return OpenSnapshot{std::move(decoded), path, std::move(opened.file), source, nullptr};
}

// One search for the ancestors of a snapshot. Each file is a candidate once only: a chain whose end is missing is not looked
// through again for every way that leads there, and a file that names itself as its parent ends the search.
class Ancestry {
 public:
  explicit Ancestry(const OpenOptions& options) : options_(options) { options_.bulk = false; }

  Result<> open_parent_of(OpenSnapshot& child) {
    if (!child.parent_link || !options_.ancestors) return {};
    if (depth_ == kMostAncestors) return fail(ErrorCode::bad_file, "snapshot " + child.path, fmt::format("has more than {} ancestors", kMostAncestors), "squash the chain");
    ++depth_;
    auto parent = find(child);
    --depth_;
    STASIS_TRY_SET(child.parent, std::move(parent));
    return {};
  }

 private:
  // The first file that holds the content wanted, with ancestors of its own.
  Result<std::shared_ptr<const OpenSnapshot>> find(const OpenSnapshot& child) {
    const ParentLink& wanted = *child.parent_link;
    std::vector<std::string> places;
    for (const std::string& place : options_.parents) places.push_back(is_folder(place) ? place + "/" + wanted.file : place);
    places.push_back(folder_of(child.path) + "/" + wanted.file);
    std::string tried;
    for (const std::string& place : places) {
      auto parent = candidate(place, child);
      if (parent) return std::make_shared<const OpenSnapshot>(std::move(*parent));
      // A file of that name that is damaged, or whose own parent is missing, is worth more words than "not found".
      tried += fmt::format("{}{}", tried.empty() ? "" : "; ", parent.error().text());
    }
    return fail(ErrorCode::not_found, "snapshot " + child.path,
                fmt::format("its parent '{}' (content {}, uuid {}) was not found: {}", wanted.file, hex(wanted.content), uuid_text(wanted.uuid), tried),
                "say where it is: --parent FILE or --parent FOLDER");
  }

  Result<OpenSnapshot> candidate(const std::string& place, const OpenSnapshot& child) {
    STASIS_TRY_SET(OpenSnapshot parent, open_alone(place, options_));
    if (parent.ram.content != child.parent_link->content) return fail(ErrorCode::not_found, place, "has content " + hex(parent.ram.content));
    if (parent.image.ram_size != child.image.ram_size)
      return fail(ErrorCode::bad_file, place, fmt::format("has {} bytes of RAM, its child {}", parent.image.ram_size, child.image.ram_size));
    struct stat info;
    if (::fstat(parent.file.get(), &info) != 0) return fail_errno(place, "stat", errno);
    if (!seen_.emplace(info.st_dev, info.st_ino).second)
      return fail(ErrorCode::bad_file, place, "is its own ancestor, or its ancestors were looked for in vain already");
    STASIS_TRY(open_parent_of(parent));
    return parent;
  }

  OpenOptions options_;
  u64 depth_ = 0;
  std::set<std::pair<dev_t, ino_t>> seen_;
};

}  // namespace

Result<OpenSnapshot> open(const std::string& path, const OpenOptions& options) {
  STASIS_TRY_SET(OpenSnapshot out, open_alone(path, options));
  STASIS_TRY(Ancestry(options).open_parent_of(out));
  return out;
}

Result<OpenSnapshot> open_stream(int fd, const std::string& name, const OpenOptions& options) {
  STASIS_TRY_SET(const std::shared_ptr<StreamSource> source, StreamSource::create(fd, name));
  STASIS_TRY_SET(Decoded decoded, decode(*source, name, options));
  source->stop(decoded.file_bytes);
  FileDescriptor memory(::fcntl(source->memory().get(), F_DUPFD_CLOEXEC, 0));
  if (!memory) return fail_errno(name, "keep what arrived", errno);
  OpenSnapshot out{std::move(decoded), name, std::move(memory), source, nullptr};
  STASIS_TRY(Ancestry(options).open_parent_of(out));
  return out;
}

const OpenSnapshot& root_of(const OpenSnapshot& snapshot) {
  const OpenSnapshot* at = &snapshot;
  while (at->parent) at = at->parent.get();
  return *at;
}

Result<Identity> identify(const std::string& path) {
  STASIS_TRY_SET(const Opened opened, open_regular(path));
  return identify(FileSource(opened.file.get(), opened.size, path), path);
}

}  // namespace stasis::snapshot
