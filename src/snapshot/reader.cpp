// Snapshots as files: opening, and what reads the RAM.
#include "snapshot/reader.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "snapshot/format.hpp"

namespace stasis::snapshot {
namespace {

class FileSource : public Source {
 public:
  FileSource(int fd, u64 size, const std::string& name) : fd_(fd), size_(size), name_(name) {}
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
  const std::string& name_;
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
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::usage, path, "is no regular file", "copy the snapshot to a file first");
  return Opened{std::move(file), static_cast<u64>(info.st_size)};
}

FileSource source_of(const OpenSnapshot& snapshot) { return {snapshot.file.get(), snapshot.file_bytes, snapshot.path}; }

// Damaged chunks as ranges of RAM offsets; says the first few.
class Damage {
 public:
  void add(u64 begin, u64 end) {
    if (!ranges_.empty() && ranges_.back().second == begin) ranges_.back().second = end;
    else if (ranges_.size() < 8) ranges_.emplace_back(begin, end);
    else more_ = true;
  }
  Result<> result(const std::string& object) const {
    if (ranges_.empty()) return {};
    std::string where;
    for (const auto& [begin, end] : ranges_) where += fmt::format("{}{:#x} to {:#x}", where.empty() ? "" : ", ", begin, end - 1);
    return fail(ErrorCode::bad_file, object,
                fmt::format("section '{}' does not match its digests at RAM offsets {}{}", kRam, where, more_ ? " and more" : ""),
                "the file is damaged: take another copy of it");
  }

 private:
  std::vector<std::pair<u64, u64>> ranges_;
  bool more_ = false;
};

// Whether the pages of one chunk are as the index says; the non-zero ones go to `out`.
bool chunk_is_whole(const Decoded& decoded, u64 chunk, Bytes data, MachineDigest& out) {
  std::array<u8, kChunkPages * sizeof(Digest)> digests;
  std::size_t used = 0;
  bool whole = true;
  for (u64 i = 0; i * kPageSize < data.size(); ++i) {
    const u8* page = data.data() + i * kPageSize;
    const bool zero = is_zero_page(page);
    if (!(decoded.nonzero[chunk] >> i & 1)) {
      whole &= zero;
      continue;
    }
    whole &= !zero;  // docs/format.md: a page of zeros has the state zero
    const Digest digest = digest_of({page, kPageSize});
    out.add_page(chunk * kChunkPages + i, digest);
    std::ranges::copy(digest, digests.begin() + static_cast<std::ptrdiff_t>(used));
    used += sizeof(Digest);
  }
  const Digest found = used ? digest_of(Bytes(digests).first(used)) : Digest{};
  return whole && std::ranges::equal(found, Bytes(decoded.chunk_digests).subspan(chunk * sizeof(Digest), sizeof(Digest)));
}

bool has_no_digest(const Decoded& decoded, u64 chunk) {
  return std::ranges::all_of(Bytes(decoded.chunk_digests).subspan(chunk * sizeof(Digest), sizeof(Digest)), [](u8 byte) { return byte == 0; });
}

Result<> read_ram(const Source& source, const Decoded& decoded, const std::string& object, SaveProgress* progress, MachineDigest& out) {
  const u64 size = decoded.image.ram_size;
  constexpr u64 kChunkBytes = kChunkPages * kPageSize;
  std::vector<u8> buffer(kChunkBytes);
  Damage damage;
  u64 data_from = 0;  // RAM offsets up to here are holes
  for (u64 chunk = 0; chunk < decoded.nonzero.size(); ++chunk) {
    const u64 begin = chunk * kChunkBytes, end = std::min(begin + kChunkBytes, size);
    if (chunk % 64 == 0 && progress && progress->step && !progress->step(begin, size))
      return fail(ErrorCode::cancelled, object, "reading was cancelled");
    const bool all_zero = decoded.nonzero[chunk] == 0;
    if (all_zero && data_from <= begin) data_from = source.next_data(decoded.ram_offset + begin) - decoded.ram_offset;
    if (all_zero && data_from >= end && has_no_digest(decoded, chunk)) continue;
    const MutableBytes data = MutableBytes(buffer).first(end - begin);
    STASIS_TRY(source.read(decoded.ram_offset + begin, data));
    if (!chunk_is_whole(decoded, chunk, data, out)) damage.add(begin, end);
  }
  if (progress && progress->step) (void)progress->step(size, size);
  return damage.result(object);
}

}  // namespace

Result<> verify_ram(const Source& source, const Decoded& decoded, const std::string& object, SaveProgress* progress) {
  MachineDigest unused(decoded.image.ram_size);
  return read_ram(source, decoded, object, progress, unused);
}

Result<std::string> digest(const Source& source, const Decoded& decoded, const std::string& object) {
  MachineDigest out(decoded.image.ram_size);
  STASIS_TRY(read_ram(source, decoded, object, nullptr, out));
  for (const PartRecord& part : decoded.image.parts) out.add_part(part.path, digest_of(cbor::encode(part.state)));
  return out.result();
}

Result<> verify_ram(const OpenSnapshot& snapshot, SaveProgress* progress) {
  return verify_ram(source_of(snapshot), snapshot, snapshot.path, progress);
}

Result<std::string> digest(const OpenSnapshot& snapshot) { return digest(source_of(snapshot), snapshot, snapshot.path); }

Result<OpenSnapshot> open(const std::string& path) {
  STASIS_TRY_SET(Opened opened, open_regular(path));
  STASIS_TRY_SET(Decoded decoded, decode(FileSource(opened.file.get(), opened.size, path), path));
  return OpenSnapshot{std::move(decoded), path, std::move(opened.file)};
}

Result<Identity> identify(const std::string& path) {
  STASIS_TRY_SET(const Opened opened, open_regular(path));
  return identify(FileSource(opened.file.get(), opened.size, path), path);
}

}  // namespace stasis::snapshot
