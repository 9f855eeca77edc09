// Decoding a snapshot: every section but RAM is read, checked against its digest, and understood or refused.
//
// Problems are collected: damage in one section does not hide what is wrong with the next. Only damage to the
// frame itself (where does the next section begin?) ends the walk.
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <set>

#include "snapshot/bodies.hpp"
#include "snapshot/format.hpp"
#include "snapshot/reader.hpp"

namespace stasis::snapshot {
namespace {

constexpr char kDamaged[] = "the file is damaged: take another copy of it";
constexpr char kNewer[] = "resume it with the Stasis that wrote it, or a newer one";

std::string written_by(const Producer& producer) {
  return fmt::format("written by {} {} at {}", producer.program, producer.version, producer.created_at);
}

class Decoder {
 public:
  Decoder(const Source& source, const std::string& object) : source_(source), object_(object) {}

  Result<Decoded> run() {
    STASIS_TRY(read_ends());
    STASIS_TRY(walk());
    if (problems_.empty()) check_whole();
    if (!problems_.empty()) return refusal();
    return std::move(out_);
  }

  // Header, and the producer as far as it can be read: both keep their form in every version.
  Result<Identity> identify() {
    STASIS_TRY_SET(const FileHeader header, read_header());
    Identity out{.format_major = header.major, .format_minor = header.minor, .producer = {}};
    if (auto producer = read_producer()) out.producer = std::move(*producer);
    out.producer.uuid = header.uuid;
    out.complete = read_commit(header).has_value();
    return out;
  }

 private:
  struct Frame {
    SectionHeader header;
    u64 at = 0, body = 0, end = 0;
  };

  std::unexpected<Error> bad(std::string message, const char* hint = kDamaged) const {
    return fail(ErrorCode::bad_file, object_, std::move(message), hint);
  }
  void problem(ErrorCode code, std::string message, std::string hint) {
    problems_.push_back({code, object_, std::move(message), std::move(hint)});
  }
  void damaged(std::string message) { problem(ErrorCode::bad_file, std::move(message), kDamaged); }
  std::string in(std::string_view section) const { return fmt::format("section '{}'", section); }

  std::unexpected<Error> refusal() const {
    Error out = problems_.front();
    for (std::size_t i = 1; i < problems_.size(); ++i) out.message += "; " + problems_[i].message;
    for (const Error& each : problems_)
      if (each.code == ErrorCode::bad_file) out.code = each.code, out.hint = each.hint;
    return std::unexpected(std::move(out));
  }

  Result<FileHeader> read_header() const {
    std::vector<u8> bytes(std::min(source_.size(), kHeaderSize));
    STASIS_TRY(source_.read(0, bytes));
    return header_from(bytes, object_);
  }

  Result<CommitRecord> read_commit(const FileHeader& header) const {
    const u64 size = source_.size();
    if (header.length && size < header.length)
      return bad(fmt::format("the file is incomplete: it has {} of {} bytes", size, header.length),
                 "its writer was interrupted, or the copy was cut short; use another snapshot or copy");
    if (header.length && size > header.length)
      return bad(fmt::format("{} bytes follow the end of the snapshot, which is {} bytes long", size - header.length, header.length));
    if (size < kHeaderSize + kCommitSize || size % 8) return bad("the file is incomplete: it has no commit record at its end");
    std::array<u8, kCommitSize> bytes;
    STASIS_TRY(source_.read(size - kCommitSize, bytes));
    STASIS_TRY_SET(const CommitRecord commit, commit_from(bytes, object_));
    if (commit.length != size) return bad(fmt::format("the file has {} bytes, its commit record says {}", size, commit.length));
    return commit;
  }

  Result<Producer> read_producer() const {
    STASIS_TRY_SET(const Frame frame, read_frame(kHeaderSize, source_.size()));
    if (frame.header.name != kProducer || frame.header.length > kMostOtherBytes) return bad("section 'producer' is not the first");
    std::vector<u8> body(frame.header.length);
    STASIS_TRY(source_.read(frame.body, body));
    if (digest_of(body) != frame.header.digest) return bad("section 'producer' does not match its digest");
    STASIS_TRY_SET(const cbor::Value value, decode_body(body, object_ + ": section 'producer'"));
    return producer_from(value, object_ + ": section 'producer'");
  }

  Result<> read_ends() {
    STASIS_TRY_SET(header_, read_header());
    if (header_.major != kFormatMajor || header_.flags != 0) {
      const auto producer = read_producer();
      const std::string who = producer ? written_by(*producer) : "its producer cannot be read";
      if (header_.major != kFormatMajor)
        return fail(ErrorCode::unsupported, object_,
                    fmt::format("has format {}.{} ({}), this Stasis reads format {}.x", header_.major, header_.minor, who, kFormatMajor), kNewer);
      return fail(ErrorCode::unsupported, object_,
                  fmt::format("has header flags {:#x} ({}), known are none", header_.flags, who), kNewer);
    }
    STASIS_TRY_SET(commit_, read_commit(header_));
    end_ = source_.size() - kCommitSize;
    out_.format_major = header_.major;
    out_.format_minor = header_.minor;
    out_.file_bytes = source_.size();
    out_.root = hex(commit_.root);
    return {};
  }

  Result<Frame> read_frame(u64 at, u64 end) const {
    const std::string here =
        fmt::format("{}: header of section {} (after {}) at byte {}", object_, out_.sections.size() + 1,
                    out_.sections.empty() ? "the file header" : "'" + out_.sections.back().name + "'", at);
    std::array<u8, kSectionHeaderSize> fixed;
    if (end < at || end - at < fixed.size()) return fail(ErrorCode::bad_file, here, "there is no room for it", kDamaged);
    STASIS_TRY(source_.read(at, fixed));
    Frame out{.at = at};
    STASIS_TRY_SET(out.header, section_header_from(fixed, here));
    std::vector<u8> name(align_up(out.header.name.size(), 8));
    if (end - at - fixed.size() < name.size()) return fail(ErrorCode::bad_file, here, "there is no room for its name", kDamaged);
    STASIS_TRY(source_.read(at + fixed.size(), name));
    STASIS_TRY(check_section_name(out.header, fixed, name, here));
    out.body = out.header.body_offset(at);
    if (out.body > end || out.header.length > end - out.body || align_up(out.header.length, 8) > end - out.body)
      return fail(ErrorCode::bad_file, here, fmt::format("section '{}' of {} bytes does not fit into the file", out.header.name, out.header.length), kDamaged);
    out.end = out.header.end(at);
    return out;
  }

  Result<> check_zero(u64 from, u64 to, std::string_view what) {
    std::vector<u8> bytes(to - from);  // at most kMostAlignment
    if (bytes.empty()) return {};
    STASIS_TRY(source_.read(from, bytes));
    if (!std::ranges::all_of(bytes, [](u8 byte) { return byte == 0; })) damaged(fmt::format("the padding {} is not zero", what));
    return {};
  }

  Result<> walk() {
    Hasher root;
    std::array<u8, kHeaderSize> header;
    STASIS_TRY(source_.read(0, header));
    root.add(header);
    std::set<std::string, std::less<>> seen;
    for (u64 at = kHeaderSize; at < end_;) {
      if (out_.sections.size() == kMostSections) return bad(fmt::format("has more than {} sections", kMostSections));
      STASIS_TRY_SET(const Frame frame, read_frame(at, end_));
      const SectionHeader& section = frame.header;
      root.add(to_bytes(section));
      if (!seen.insert(section.name).second) damaged(in(section.name) + " is there twice");
      out_.sections.push_back({.name = section.name, .version = section.version, .critical = (section.flags & kCritical) != 0,
                               .offset = frame.body, .length = section.length,
                               .digest = section.flags & kRegion ? "" : hex(section.digest)});
      STASIS_TRY(check_zero(at + section.header_bytes(), frame.body, "before " + in(section.name)));
      STASIS_TRY(take(frame));
      STASIS_TRY(check_zero(frame.body + section.length, frame.end, "after " + in(section.name)));
      at = frame.end;
    }
    if (out_.sections.size() != commit_.sections)
      damaged(fmt::format("has {} sections, its commit record says {}", out_.sections.size(), commit_.sections));
    if (problems_.empty() && root.result() != commit_.root) damaged("the section headers do not match the root digest of the commit record");
    return {};
  }

  // One section: understood, skipped, or a problem.
  Result<> take(const Frame& frame) {
    const SectionHeader& section = frame.header;
    const bool region = section.name == kRam;
    const ListedPart* part = listed(section.name);
    const bool known = region || part || section.name == kProducer || section.name == kMachine || section.name == kParts ||
                       section.name == kHost || section.name == kRamIndex;
    if (out_.sections.size() == 1 && section.name != kProducer) damaged("section 'producer' is not the first");
    if (section.flags & ~kKnownFlags)
      problem(ErrorCode::unsupported, fmt::format("{} has flags {:#x}, known are {:#x}", in(section.name), section.flags, u32{kKnownFlags}), kNewer);
    if (known && (section.version == 0 || section.version > 1)) {
      problem(ErrorCode::unsupported, fmt::format("{} has version {} ({}), this Stasis reads version 1", in(section.name), section.version,
                                                  written_by(out_.image.producer)), kNewer);
      return {};
    }
    if (!known && (section.flags & kCritical))
      problem(ErrorCode::unsupported, fmt::format("{} is unknown here and must be understood ({})", in(section.name),
                                                  written_by(out_.image.producer)), kNewer);
    if (!known) return section.flags & kRegion ? Result<>{} : check_unknown(frame);
    out_.sections.back().known = true;
    if (region != ((section.flags & kRegion) != 0)) return damaged(fmt::format("{} has flags {:#x}", in(section.name), section.flags)), Result<>{};
    return region ? take_ram(frame) : take_body(frame, part);
  }

  const ListedPart* listed(std::string_view name) const {
    const auto found = std::ranges::lower_bound(parts_, name, {}, [](const ListedPart& part) { return std::string_view(part.path); });
    return found != parts_.end() && found->path == name ? &*found : nullptr;
  }

  // Skipped, but damage anywhere in the file is told.
  Result<> check_unknown(const Frame& frame) {
    STASIS_TRY(count_metadata(frame.header, kMostMetadataBytes));
    Hasher hasher;
    std::vector<u8> block(std::min(frame.header.length, kMiB));
    for (u64 done = 0; done < frame.header.length;) {
      const u64 size = std::min<u64>(block.size(), frame.header.length - done);
      STASIS_TRY(source_.read(frame.body + done, MutableBytes(block).first(size)));
      hasher.add(Bytes(block).first(size));
      done += size;
    }
    if (hasher.result() != frame.header.digest) damaged(in(frame.header.name) + " does not match its digest");
    return {};
  }

  Result<> take_ram(const Frame& frame) {
    const u64 size = frame.header.length;
    if (size == 0 || size % kPageSize || size > kMostRam)
      return bad(fmt::format("section '{}' has {} bytes, allowed are whole pages up to {} GiB", kRam, size, kMostRam / kGiB));
    if (frame.body % kPageSize) return bad(fmt::format("section '{}' begins at byte {}, wanted is a multiple of {}", kRam, frame.body, kPageSize));
    if (frame.header.digest != Digest{}) damaged(fmt::format("section '{}' has a digest of its own", kRam));
    out_.image.ram_size = size;
    out_.ram_offset = frame.body;
    return {};
  }

  u64 most_bytes(std::string_view name, bool part) const {
    if (name == kRamIndex) return out_.image.ram_size / kPageSize / kChunkPages * kChunkRecord + 4096;
    return part ? kMostPartBytes : kMostOtherBytes;
  }

  Result<> count_metadata(const SectionHeader& section, u64 most) {
    if (section.length > most || section.length > kMostMetadataBytes - metadata_)
      return bad(fmt::format("section '{}' has {} bytes, allowed are {} here and {} in all", section.name, section.length, most, kMostMetadataBytes));
    metadata_ += section.length;
    return {};
  }

  Result<> take_body(const Frame& frame, const ListedPart* part) {
    const SectionHeader& section = frame.header;
    const u64 most = most_bytes(section.name, part);
    STASIS_TRY(count_metadata(section, most));
    if (out_.ram_offset && section.name != kRamIndex) damaged(in(section.name) + " comes after the RAM");
    const MutableBytes body = room_for(section.length);
    STASIS_TRY(source_.read(frame.body, body));
    if (digest_of(body) != section.digest) return damaged(in(section.name) + " does not match its digest"), Result<>{};
    if (auto understood = understand(frame, body, part); !understood) {
      if (section.name == kParts || section.name == kProducer) return understood;
      problems_.push_back(understood.error());
      problems_.back().message = fmt::format("{}: {}", in(section.name), problems_.back().message);
      problems_.back().object = object_;
    }
    return {};
  }

  // Kernels are large, and touching new memory page by page takes longer than reading them.
  MutableBytes room_for(u64 size) {
    if (body_size_ < size) {
      constexpr u64 kHugePage = 2 * kMiB;
      body_size_ = align_up(size, size < kHugePage ? kPageSize : kHugePage);
      body_.reset(static_cast<u8*>(std::aligned_alloc(size < kHugePage ? kPageSize : kHugePage, body_size_)));
      STASIS_ASSERT(body_);
      if (size >= kHugePage) (void)::madvise(body_.get(), body_size_, MADV_HUGEPAGE);  // a hint
    }
    return {body_.get(), size};
  }

  Result<> understand(const Frame& frame, Bytes body, const ListedPart* part) {
    const std::string& name = frame.header.name;
    const std::string where = fmt::format("{}: {}", object_, in(name));
    STASIS_TRY_SET(cbor::Value value, decode_body(body, where));
    if (name == kProducer) {
      STASIS_TRY_SET(out_.image.producer, producer_from(value, where));
      out_.image.producer.uuid = header_.uuid;
    } else if (name == kMachine) {
      STASIS_TRY_SET(out_.image.machine, part_from(std::move(value), name, where));
    } else if (name == kParts) {
      STASIS_TRY_SET(parts_, parts_from(value, where));
    } else if (name == kHost) {
      STASIS_TRY_SET(out_.image.host, host_from(value, where));
    } else if (name == kRamIndex) {
      if (frame.at != commit_.index_offset) damaged(fmt::format("the commit record says that {} is at byte {}, it is at {}", in(name), commit_.index_offset, frame.at));
      STASIS_TRY_SET(Index index, index_from(value, out_.image.ram_size / kPageSize, where));
      out_.nonzero = std::move(index.nonzero);
      out_.chunk_digests = std::move(index.chunk_digests);
    } else {
      STASIS_ASSERT(part);
      STASIS_TRY_SET(PartRecord record, part_from(std::move(value), name, where));
      if (record.schema.kind != part->kind || record.schema.version != part->version)
        return fail(ErrorCode::bad_file, where,
                    fmt::format("is {} version {}, section 'parts' says {} version {}", record.schema.kind, record.schema.version, part->kind, part->version),
                    kDamaged);
      out_.image.parts.push_back(std::move(record));
    }
    return {};
  }

  void check_whole() {
    for (const std::string_view wanted : {kProducer, kMachine, kParts, kHost, kRam, kRamIndex})
      if (std::ranges::find(out_.sections, wanted, &SectionInfo::name) == out_.sections.end()) damaged(in(wanted) + " is missing");
    std::ranges::sort(out_.image.parts, {}, &PartRecord::path);
    for (const ListedPart& part : parts_)
      if (!std::ranges::binary_search(out_.image.parts, part.path, {}, &PartRecord::path)) damaged(in(part.path) + " is missing");
  }

  const Source& source_;
  const std::string& object_;
  FileHeader header_;
  CommitRecord commit_;
  u64 end_ = 0;  // of the sections
  u64 metadata_ = 0;
  struct Free {
    void operator()(u8* memory) const { std::free(memory); }
  };
  std::unique_ptr<u8, Free> body_;
  u64 body_size_ = 0;
  std::vector<ListedPart> parts_;
  std::vector<Error> problems_;
  Decoded out_;
};

}  // namespace

Result<Decoded> decode(const Source& source, const std::string& object) { return Decoder(source, object).run(); }

Result<Identity> identify(const Source& source, const std::string& object) { return Decoder(source, object).identify(); }

}  // namespace stasis::snapshot
