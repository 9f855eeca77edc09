// The frame of a snapshot as it is read: header, commit record, and from one section header to the next.
#pragma once

#include "snapshot/format.hpp"
#include "snapshot/reader.hpp"

namespace stasis::snapshot {

inline constexpr char kDamaged[] = "the file is damaged: take another copy of it";
inline constexpr char kNewer[] = "resume it with the Stasis that wrote it, or a newer one";

struct Frame {
  SectionHeader header;
  std::vector<u8> bytes;  // of the header, with name and padding: what the root digest is over
  u64 at = 0, body = 0;   // file offsets of header and body
  u64 end = 0;            // of the body without padding; of blocks: behind the last
  u64 next = 0;           // where the next section or the commit record begins
};

// Both outlive it.
class FrameReader {
 public:
  FrameReader(const Source& source, const std::string& object) : source_(source), object_(object) {}

  Result<FileHeader> header() const;
  // The record at the end of a file that is whole; incomplete and longer files are refused in those words.
  Result<CommitRecord> commit_at_end(const FileHeader& header) const;
  Result<CommitRecord> commit_at(u64 at, const FileHeader& header) const;
  Result<bool> is_commit_at(u64 at) const;
  Result<Producer> producer() const;  // of any format version
  // `previous`: the section before, for the message. `most`: where the file's sections end at the latest. `index_at`: where the
  // index of a region of blocks begins, which then need not be walked; 0: not known.
  Result<Frame> frame(u64 at, u64 most, const std::string& previous, u64 index_at) const;
  Result<bool> is_zero(u64 from, u64 to) const;  // bytes between two places, at most kMostAlignment

 private:
  Result<u64> end_of_blocks(u64 at, u64 most) const;
  std::unexpected<Error> bad(std::string message, const char* hint = kDamaged) const {
    return fail(ErrorCode::bad_file, object_, std::move(message), hint);
  }
  const Source& source_;
  const std::string& object_;
  mutable u64 blocks_ = 0;  // walked so far: a file may have many regions, and headers that only seem to be ones
};

}  // namespace stasis::snapshot
