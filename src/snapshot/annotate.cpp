// Notes: all sections are copied as they are but that one.
#include "snapshot/annotate.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.hpp"
#include "snapshot/bodies.hpp"
#include "snapshot/file_sink.hpp"
#include "snapshot/format.hpp"
#include "snapshot/frame_reader.hpp"
#include "snapshot/output.hpp"
#include "snapshot/publication.hpp"
#include "snapshot/rewrite.hpp"

namespace stasis::snapshot {
namespace {

// A region's bytes have fixed places, so nothing before the end of the index may grow.
bool notes_come_last(const OpenSnapshot& snapshot) {
  const auto notes = std::ranges::find(snapshot.sections, kNotes, &SectionInfo::name);
  const auto index = std::ranges::find(snapshot.sections, kRamIndex, &SectionInfo::name);
  return notes == snapshot.sections.end() || notes > index;
}

class Copier {
 public:
  Copier(const OpenSnapshot& from, const std::string& path, Output& out) : from_(from), frames_(*from.source, path), out_(out) {}

  Result<> run(const cbor::ByteString& notes) {
    STASIS_TRY_SET(FileHeader header, frames_.header());
    STASIS_TRY_SET(const CommitRecord before, frames_.commit_at_end(header));
    STASIS_TRY(plan(before, notes.size()));
    const u64 old_length = header.length;
    if (header.length) header.length = length_;
    const auto bytes = to_bytes(header);
    root_.add(bytes);
    out_.expect(length_);
    STASIS_TRY(out_.write(bytes));
    for (const Frame& frame : kept_) STASIS_TRY(copy(frame));
    SectionHeader section{.name = std::string(kNotes), .flags = 0, .length = notes.size(), .digest = digest_of(notes)};
    const u64 at = out_.position();
    const std::vector<u8> section_bytes = to_bytes(section);
    root_.add(section_bytes);
    STASIS_TRY(out_.write(section_bytes));
    STASIS_TRY(out_.pad_to(section.body_offset(at)));
    STASIS_TRY(out_.write(notes));
    STASIS_TRY(out_.pad_to(section.end(at)));
    commit_ = {.length = out_.position() + kCommitSize, .index_offset = before.index_offset, .sections = static_cast<u32>(kept_.size() + 1), .root = root_.result()};
    STASIS_ASSERT(commit_.length == length_ && (old_length == 0 || header.length == length_));
    return {};
  }
  const CommitRecord& commit() const { return commit_; }
  u64 length() const { return length_; }

 private:
  // All sections but the notes, which go to the end.
  Result<> plan(const CommitRecord& commit, u64 note_bytes) {
    u64 end = kHeaderSize;
    for (u64 at = kHeaderSize; at < from_.file_bytes - kCommitSize;) {
      STASIS_TRY_SET(Frame frame, frames_.frame(at, from_.file_bytes - kCommitSize, "", commit.index_offset));
      at = frame.next;
      if (frame.header.name == kNotes) continue;
      end = moved_end(frame, end);
      kept_.push_back(std::move(frame));
    }
    length_ = SectionHeader{.name = std::string(kNotes), .length = note_bytes}.end(end) + kCommitSize;
    return {};
  }

  static u64 moved_end(const Frame& frame, u64 at) {
    const u64 body = frame.header.body_offset(at);
    return align_up(body + (frame.end - frame.body), 8);
  }

  Result<> copy(const Frame& frame) {
    const u64 at = out_.position();
    root_.add(frame.bytes);
    STASIS_TRY(out_.write(frame.bytes));
    STASIS_TRY(out_.pad_to(frame.header.body_offset(at)));
    std::vector<u8> piece(kMiB);
    const u64 begin = out_.position();
    const bool pages = frame.header.flags & kRegion && !(frame.header.flags & kBlocks);
    for (u64 from = frame.body; from < frame.end;) {
      const u64 data = pages ? std::min(from_.source->next_data(from), frame.end) & ~(kPageSize - 1) : from;
      from = std::max(from, data);
      const MutableBytes part = MutableBytes(piece).first(std::min<u64>(piece.size(), frame.end - from));
      STASIS_TRY(from_.source->read(from, part));
      STASIS_TRY(pages ? put_pages(part, begin + (from - frame.body)) : out_.write(part));
      STASIS_TRY(out_.step(part.size()));
      from += part.size();
    }
    return out_.pad_to(moved_end(frame, at));
  }

  // Whole pages to their place; a page of zeros stays a hole.
  Result<> put_pages(Bytes bytes, u64 place) {
    for (u64 at = 0; at < bytes.size();) {
      u64 end = at;
      while (end < bytes.size() && !is_zero_page(bytes.data() + end)) end += kPageSize;
      if (end > at) {
        STASIS_TRY(out_.pad_to(place + at));
        STASIS_TRY(out_.write(bytes.subspan(at, end - at)));
      }
      at = end + kPageSize;
    }
    return {};
  }

  const OpenSnapshot& from_;
  const FrameReader frames_;
  Output& out_;
  Hasher root_;
  std::vector<Frame> kept_;
  CommitRecord commit_;
  u64 length_ = 0;
};

Result<> splice(const OpenSnapshot& snapshot, const Image& image, SaveProgress* progress) {
  STASIS_TRY_SET(Publication publication, Publication::begin(snapshot.path));
  STASIS_TRY(publication.check_replaces(snapshot.file.get()));
  FileSink sink(publication.fd(), snapshot.path);
  Output out(sink, progress);
  STASIS_TRY(sink.announce(0, snapshot.file_bytes));
  Copier copier(snapshot, snapshot.path, out);
  STASIS_TRY(copier.run(cbor::encode(notes_body(image.notes))));
  STASIS_TRY(sink.settle());
  STASIS_TRY(out.write(to_bytes(copier.commit())));
  STASIS_TRY(sink.flush());
  STASIS_TRY(out.finish());
  return publication.publish();
}

}  // namespace

Result<> annotate(const OpenSnapshot& snapshot, const Note& note, const std::optional<Key>& key, int level, SaveProgress* progress) {
  if (note.text.empty() || std::max(note.text.size(), note.by.size()) > kMostText)
    return fail(ErrorCode::usage, "note", fmt::format("has {} bytes by {} bytes, allowed are 1 to {} each", note.text.size(), note.by.size(), kMostText), "write a line");
  for (const std::string* text : {&note.text, &note.by})  // a reader would refuse them
    if (printable(*text) != *text || text->find('\n') != text->npos)
      return fail(ErrorCode::usage, "note", "has control characters or is not UTF-8", "write one line of plain text");
  if (snapshot.format_major == 0)
    return fail(ErrorCode::unsupported, snapshot.path, fmt::format("has format 0.{}, which has no notes", snapshot.format_minor),
                "convert it first: stasis snapshot convert OLD NEW");
  Image image = snapshot.image;
  image.notes.push_back(note);
  const bool first = std::ranges::find(snapshot.sections, kNotes, &SectionInfo::name) == snapshot.sections.end();
  if (const u64 size = cbor::encode(notes_body(image.notes)).size() + kMostCipherBytes; size > kMostOtherBytes || (first && snapshot.sections.size() >= kMostSections))
    return fail(ErrorCode::usage, snapshot.path, fmt::format("has no room for another note: notes have up to {} bytes, a file up to {} sections", kMostOtherBytes, kMostSections),
                "write it elsewhere");
  if (!snapshot.encrypted && notes_come_last(snapshot)) return splice(snapshot, image, progress);
  const SaveOptions options{.encoding = snapshot.ram.encoding, .level = level, .key = key, .parent = snapshot.parent.get()};
  STASIS_TRY(rewrite(snapshot, image, {.name = snapshot.path}, options, progress));
  return {};
}

}  // namespace stasis::snapshot
