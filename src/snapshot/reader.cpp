// Snapshots as files and streams: opening them, with their parents.
#include "snapshot/reader.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "snapshot/examine.hpp"
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

Result<OpenSnapshot> open_at_depth(const std::string& path, const OpenOptions& options, unsigned depth);

// The parent where it may be: the first file that holds the content wanted.
Result<std::shared_ptr<const OpenSnapshot>> find_parent(const OpenSnapshot& child, const OpenOptions& options, unsigned depth) {
  const ParentLink& wanted = *child.parent_link;
  const std::string object = "snapshot " + child.path;
  if (depth >= kMostAncestors) return fail(ErrorCode::bad_file, object, fmt::format("has more than {} ancestors", kMostAncestors), "squash the chain");
  std::vector<std::string> places;
  for (const std::string& place : options.parents) places.push_back(is_folder(place) ? place + "/" + wanted.file : place);
  places.push_back(folder_of(child.path) + "/" + wanted.file);
  std::string tried;
  for (const std::string& place : places) {
    OpenOptions without_bulk = options;
    without_bulk.bulk = false;
    auto parent = open_at_depth(place, without_bulk, depth + 1);
    if (parent && parent->ram.content == wanted.content && parent->image.ram_size == child.image.ram_size)
      return std::make_shared<const OpenSnapshot>(std::move(*parent));
    // A file of that name that is damaged, or whose own parent is missing, is worth more words than "not found".
    tried += fmt::format("{}{}", tried.empty() ? "" : "; ", parent ? fmt::format("{} has content {}", place, hex(parent->ram.content)) : parent.error().text());
  }
  return fail(ErrorCode::not_found, object,
              fmt::format("its parent '{}' (content {}, uuid {}) was not found: {}", wanted.file, hex(wanted.content), uuid_text(wanted.uuid), tried),
              "say where it is: --parent FILE or --parent FOLDER");
}

// A record from the file that has it: this one, or an ancestor.
Result<PartRecord> read_part(const OpenSnapshot& snapshot, const PartRecord& wanted) {
  const OpenSnapshot* holder = &snapshot;
  const auto entry = [&] { return std::ranges::find(holder->listed, wanted.path, &ListedPart::path); };
  const auto disagree = [&] {
    return fail(ErrorCode::bad_file, "snapshot " + snapshot.path, fmt::format("part '{}' is not what its parent {} has", wanted.path, holder->path),
                "the file is damaged: take another copy of it");
  };
  while (entry() != holder->listed.end() && entry()->inherited && holder->parent) holder = holder->parent.get();
  const auto section = std::ranges::find(holder->sections, wanted.path, &SectionInfo::name);
  if (section == holder->sections.end()) return disagree();
  std::vector<u8> body(section->length);
  STASIS_TRY(holder->source->read(section->offset, body));
  const std::string where = fmt::format("{}: section '{}'", holder->path, wanted.path);
  if (hex(digest_of(body)) != section->digest) return fail(ErrorCode::bad_file, where, "does not match its digest", "the file is damaged: take another copy of it");
  MutableBytes clear = body;
  if (holder->cipher) {
    const auto opened = holder->cipher->open_section(wanted.path, body);
    if (!opened) return fail(ErrorCode::bad_file, where, "is not what was encrypted with this key", "the file is damaged: take another copy of it");
    clear = *opened;
  }
  STASIS_TRY_SET(cbor::Value value, decode_body(clear, where));
  STASIS_TRY_SET(PartRecord record, part_from(std::move(value), wanted.path, where));
  if (record.schema.kind != wanted.schema.kind || record.schema.version != wanted.schema.version || digest_of(cbor::encode(record.state)) != wanted.state_digest)
    return disagree();
  return record;
}

Result<> open_parent(OpenSnapshot& child, const OpenOptions& options, unsigned depth) {
  if (!child.parent_link || !options.ancestors) return {};
  STASIS_TRY_SET(child.parent, find_parent(child, options, depth));
  return options.bulk ? join_parts(child) : Result<>{};
}

Result<OpenSnapshot> open_at_depth(const std::string& path, const OpenOptions& options, unsigned depth) {
  STASIS_TRY_SET(Opened opened, open_regular(path));
  const auto source = std::make_shared<const FileSource>(opened.file.get(), opened.size, path);
  STASIS_TRY_SET(Decoded decoded, decode(*source, path, options));
  OpenSnapshot out{std::move(decoded), path, std::move(opened.file), source, nullptr};
  STASIS_TRY(open_parent(out, options, depth));
  return out;
}

}  // namespace

Result<> join_parts(OpenSnapshot& child) {
  for (PartRecord& part : child.image.parts) {
    if (!part.inherited || !part.left_out || !child.parent) continue;
    STASIS_TRY_SET(part, read_part(child, part));
  }
  return {};
}

Result<OpenSnapshot> open(const std::string& path, const OpenOptions& options) { return open_at_depth(path, options, 0); }

Result<ExaminedFile> examine(const std::string& path, const OpenOptions& options) {
  STASIS_TRY_SET(Opened opened, open_regular(path));
  const auto source = std::make_shared<const FileSource>(opened.file.get(), opened.size, path);
  ExaminedFile out{examine(*source, path, options), {}};
  static_cast<Decoded&>(out.snapshot) = std::move(out.decoded);
  out.snapshot.path = path;
  out.snapshot.file = std::move(opened.file);
  out.snapshot.source = source;
  if (auto parent = open_parent(out.snapshot, options, 0); !parent) out.problems.push_back(std::move(parent).error());
  return out;
}

Result<OpenSnapshot> open_stream(int fd, const std::string& name, const OpenOptions& options) {
  STASIS_TRY_SET(const std::shared_ptr<StreamSource> source, StreamSource::create(fd, name));
  STASIS_TRY_SET(Decoded decoded, decode(*source, name, options));
  source->stop(decoded.file_bytes);
  FileDescriptor memory(::fcntl(source->memory().get(), F_DUPFD_CLOEXEC, 0));
  if (!memory) return fail_errno(name, "keep what arrived", errno);
  OpenSnapshot out{std::move(decoded), name, std::move(memory), source, nullptr};
  STASIS_TRY(open_parent(out, options, 0));
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
