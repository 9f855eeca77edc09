// Snapshots as files and streams: opening them, with their parents.
#include "snapshot/reader.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

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

// Where a record is: in this file, or in an ancestor.
struct Place {
  const OpenSnapshot* holder;
  const SectionInfo* section;  // null: the holder does not have it
  std::string where() const { return fmt::format("{}: section '{}'", holder->path, section->name); }
};

Place place_of(const OpenSnapshot& snapshot, const PartRecord& wanted) {
  const OpenSnapshot* holder = &snapshot;
  const auto entry = [&] { return std::ranges::find(holder->listed, wanted.path, &ListedPart::path); };
  while (entry() != holder->listed.end() && entry()->inherited && holder->parent) holder = holder->parent.get();
  const auto section = std::ranges::find(holder->sections, wanted.path, &SectionInfo::name);
  const bool held = entry() != holder->listed.end() && !entry()->inherited;
  if (!held || section == holder->sections.end() || !section->known || section->length > kMostPartBytes) return {holder, nullptr};
  return {holder, &*section};
}

std::unexpected<Error> disagree(const OpenSnapshot& snapshot, const PartRecord& wanted, const Place& place) {
  return fail(ErrorCode::bad_file, "snapshot " + snapshot.path, fmt::format("part '{}' is not what its parent {} has", wanted.path, place.holder->path),
              "the file is damaged: take another copy of it");
}

std::unexpected<Error> not_its_digest(const Place& place) {
  return fail(ErrorCode::bad_file, place.where(), "does not match its digest", "the file is damaged: take another copy of it");
}

// Stored bytes against their digest, through a buffer that stays in the processor's cache.
Result<> check_stored(const Place& place) {
  std::vector<u8> buffer(256 * kKiB);
  Hasher hasher;
  for (u64 done = 0; done < place.section->length;) {
    const MutableBytes piece = MutableBytes(buffer).first(std::min<u64>(buffer.size(), place.section->length - done));
    STASIS_TRY(place.holder->source->read(place.section->offset + done, piece));
    hasher.add(piece);
    done += piece.size();
  }
  return hex(hasher.result()) == place.section->digest ? Result<>{} : not_its_digest(place);
}

Result<PartRecord> read_part(const OpenSnapshot& snapshot, const PartRecord& wanted) {
  const Place place = place_of(snapshot, wanted);
  const auto& [holder, section] = place;
  if (!section) return disagree(snapshot, wanted, place);
  std::vector<u8> body(section->length);
  STASIS_TRY(holder->source->read(section->offset, body));
  const std::string where = place.where();
  if (hex(digest_of(body)) != section->digest) return not_its_digest(place);
  MutableBytes clear = body;
  if (holder->cipher) {
    const auto opened = holder->cipher->open_section(wanted.path, body);
    if (!opened) return fail(ErrorCode::bad_file, where, "is not what was encrypted with this key", "the file is damaged: take another copy of it");
    clear = *opened;
  }
  STASIS_TRY_SET(cbor::Value value, decode_body(clear, where));
  STASIS_TRY_SET(PartRecord record, part_from(std::move(value), wanted.path, where));
  if (record.schema.kind != wanted.schema.kind || record.schema.version != wanted.schema.version || digest_of(cbor::encode(record.state)) != wanted.state_digest)
    return disagree(snapshot, wanted, place);
  return record;
}

Result<OpenSnapshot> open_alone(const std::string& path, const OpenOptions& options) {
  STASIS_TRY_SET(Opened opened, open_regular(path));
  const auto source = std::make_shared<const FileSource>(opened.file.get(), opened.size, path);
  STASIS_TRY_SET(Decoded decoded, decode(*source, path, options));
  return OpenSnapshot{std::move(decoded), path, std::move(opened.file), source, nullptr, false};
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
    std::optional<Error> above;  // the parent is there, and an ancestor of its own is not
    std::optional<Error> unusable;  // it is there, damaged, sealed, newer or not to be read
    for (const std::string& place : places) {
      auto parent = candidate(place, child);
      if (parent) {
        const auto whole = open_parent_of(*parent);
        if (whole) return std::make_shared<const OpenSnapshot>(std::move(*parent));
        if (!above) above = whole.error();
        continue;
      }
      if (!unusable && parent.error().code != ErrorCode::not_found) unusable = parent.error();
      tried += fmt::format("{}{}", tried.empty() ? "" : "; ", parent.error().text());
    }
    if (above) return std::unexpected(std::move(*above));
    const std::string parent = fmt::format("its parent '{}' (content {}, uuid {})", wanted.file, hex(wanted.content), uuid_text(wanted.uuid));
    if (unusable) return fail(unusable->code, "snapshot " + child.path, fmt::format("{} cannot be used: {}: {}", parent, unusable->object, unusable->message), unusable->hint);
    return fail(ErrorCode::not_found, "snapshot " + child.path, fmt::format("{} was not found: {}", parent, tried), "say where it is: --parent FILE or --parent FOLDER");
  }

  Result<OpenSnapshot> candidate(const std::string& place, const OpenSnapshot& child) {
    if (is_folder(place)) return fail(ErrorCode::not_found, place, "is a folder");
    STASIS_TRY_SET(OpenSnapshot parent, open_alone(place, options_));
    if (parent.ram.content != child.parent_link->content) return fail(ErrorCode::not_found, place, "has content " + hex(parent.ram.content));
    if (parent.image.ram_size != child.image.ram_size || (child.ram.pages && parent.ram.pages != child.ram.pages))
      return fail(ErrorCode::bad_file, place, fmt::format("has {} bytes of RAM, its child {}", parent.image.ram_size, child.image.ram_size));
    STASIS_TRY(check_what_is_left_to(parent, child));
    struct stat info;
    if (::fstat(parent.file.get(), &info) != 0) return fail_errno(place, "stat", errno);
    if (!seen_.emplace(info.st_dev, info.st_ino).second)
      return fail(ErrorCode::bad_file, place, "is its own ancestor, or its ancestors were looked for in vain already");
    return parent;
  }

  // By the indexes: one content digest does not say that a child asks of its parent only what is there.
  static Result<> check_what_is_left_to(const OpenSnapshot& parent, const OpenSnapshot& child) {
    for (u64 i = 0; i < child.ram.chunks.size(); ++i) {
      const ChunkRecord &mine = child.ram.chunks[i], &theirs = parent.ram.chunks[i];
      const bool all = mine.in_parent && mine.in_parent == mine.nonzero && mine.nonzero == theirs.nonzero;
      if (mine.in_parent & ~theirs.nonzero || (all && mine.content != theirs.content))
        return fail(ErrorCode::bad_file, parent.path, fmt::format("does not hold what {} leaves to it at RAM offset {:#x}", child.path, i * kChunkBytes));
    }
    return {};
  }

  OpenOptions options_;
  u64 depth_ = 0;
  std::set<std::pair<dev_t, ino_t>> seen_;
};

}  // namespace

Result<> join_parts(OpenSnapshot& child) {
  for (PartRecord& part : child.image.parts) {
    if (!part.inherited || !part.left_out || !child.parent) continue;
    STASIS_TRY_SET(part, read_part(child, part));
  }
  return {};
}

Result<> check_left_out(const OpenSnapshot& snapshot) {
  for (const PartRecord& part : snapshot.image.parts) {
    if (!part.left_out || (part.inherited && !snapshot.parent)) continue;
    const Place place = place_of(snapshot, part);
    if (!place.section) return disagree(snapshot, part, place);
    STASIS_TRY(check_stored(place));
  }
  return {};
}

namespace {

Result<> open_parent(OpenSnapshot& child, const OpenOptions& options) {
  STASIS_TRY(Ancestry(options).open_parent_of(child));
  return options.bulk ? join_parts(child) : Result<>{};
}

}  // namespace

Result<OpenSnapshot> open(const std::string& path, const OpenOptions& options) {
  STASIS_TRY_SET(OpenSnapshot out, open_alone(path, options));
  STASIS_TRY(open_parent(out, options));
  return out;
}

Result<ExaminedFile> examine(const std::string& path, const OpenOptions& options) {
  STASIS_TRY_SET(Opened opened, open_regular(path));
  const auto source = std::make_shared<const FileSource>(opened.file.get(), opened.size, path);
  ExaminedFile out{examine(*source, path, options), {}};
  static_cast<Decoded&>(out.snapshot) = std::move(out.decoded);
  out.snapshot.path = path;
  out.snapshot.file = std::move(opened.file);
  out.snapshot.source = source;
  if (auto parent = open_parent(out.snapshot, options); !parent) out.problems.push_back(std::move(parent).error());
  return out;
}

Result<OpenSnapshot> open_stream(int fd, const std::string& name, const OpenOptions& options) {
  STASIS_TRY_SET(const std::shared_ptr<StreamSource> source, StreamSource::create(fd, name));
  STASIS_TRY_SET(Decoded decoded, decode(*source, name, options));
  source->stop(decoded.file_bytes);
  FileDescriptor memory(::fcntl(source->memory().get(), F_DUPFD_CLOEXEC, 0));
  if (!memory) return fail_errno(name, "keep what arrived", errno);
  OpenSnapshot out{std::move(decoded), name, std::move(memory), source, nullptr, true};
  STASIS_TRY(open_parent(out, options));
  return out;
}

const OpenSnapshot& root_of(const OpenSnapshot& snapshot) {
  const OpenSnapshot* at = &snapshot;
  while (at->parent) at = at->parent.get();
  return *at;
}

bool is_file_of(const OpenSnapshot& snapshot, const std::string& path) {
  struct stat target, held;
  if (::stat(path.c_str(), &target) != 0) return false;
  for (const OpenSnapshot* at = &snapshot; at; at = at->parent.get())
    if (::fstat(at->file.get(), &held) == 0 && held.st_dev == target.st_dev && held.st_ino == target.st_ino) return true;
  return false;
}

Result<Identity> identify(const std::string& path) {
  STASIS_TRY_SET(const Opened opened, open_regular(path));
  return identify(FileSource(opened.file.get(), opened.size, path), path);
}

}  // namespace stasis::snapshot
