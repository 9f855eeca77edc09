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
#include "snapshot/examine.hpp"
#include "snapshot/format.hpp"
#include "snapshot/frame_reader.hpp"
#include "snapshot/reader.hpp"

namespace stasis::snapshot {
namespace {

constexpr u64 kBulk = kMiB;  // see OpenOptions::bulk

std::string written_by(const Producer& producer) {
  return fmt::format("written by {} {} at {}", producer.program, producer.version, producer.created_at);
}

class Decoder {
 public:
  Decoder(const Source& source, const std::string& object, const OpenOptions& options)
      : source_(source), object_(object), options_(options), frames_(source, object) {}

  Result<Decoded> run() {
    STASIS_TRY(begin());
    STASIS_TRY(walk());
    if (problems_.empty()) check_whole();
    if (!problems_.empty()) return refusal();
    finish();
    return std::move(out_);
  }

  // Goes on past damage; see Examination.
  Examination examine() {
    all_ = true;
    if (begin_anyway()) {
      if (const auto walked = walk(); !walked) problems_.push_back(walked.error());
      check_whole();
    }
    const bool parts_read = parts_read_ && out_.image.parts.size() == parts_.size() && !out_.image.machine.path.empty();
    finish();
    return {.decoded = std::move(out_), .problems = std::move(problems_), .locked = no_key_, .blocks = in_blocks_, .index_read = index_at_ != 0, .parts_read = parts_read};
  }

 private:
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

  Result<> begin() {
    STASIS_TRY_SET(header_, frames_.header());
    STASIS_TRY(check_version());
    if (!source_.arriving()) {
      STASIS_TRY_SET(commit_, frames_.commit_at_end(header_));
      end_ = source_.size() - kCommitSize;
    } else {
      if (header_.length && header_.length < kHeaderSize + kCommitSize)
        return bad(fmt::format("its header says that it has {} bytes, the least are {}", header_.length, kHeaderSize + kCommitSize));
      end_ = header_.length ? header_.length - kCommitSize : kMostRam * 2;
    }
    return {};
  }

  // Without a good header or commit record the sections can be followed all the same. False: this is no snapshot, or of a
  // version that has other sections.
  bool begin_anyway() {
    auto header = frames_.header();
    if (!header) {
      problems_.push_back(header.error());
      std::array<u8, kMagic.size()> magic{};
      if (source_.size() < kHeaderSize || !source_.read(0, magic) || magic != kMagic) return false;
    } else {
      header_ = *header;
    }
    if (auto version = check_version(); !version) return problems_.push_back(version.error()), false;
    auto commit = frames_.commit_at_end(header_);
    if (commit) commit_ = *commit;
    else problems_.push_back(commit.error()), torn_ = true;
    end_ = source_.size();
    std::array<u8, kCommitMagic.size()> last{};
    if (end_ >= kHeaderSize + kCommitSize && source_.read(end_ - kCommitSize, last) && is_commit(last)) end_ -= kCommitSize;
    return true;
  }

  Result<> check_version() {
    if (!is_known_major(header_.major) || (header_.flags & ~kKnownHeaderFlags) || (header_.major == 0 && header_.flags)) {
      const auto producer = frames_.producer();
      const std::string who = producer ? written_by(*producer) : "its producer cannot be read";
      if (!is_known_major(header_.major))
        return fail(ErrorCode::unsupported, object_,
                    fmt::format("has format {}.{} ({}), this Stasis reads formats up to {}.x", header_.major, header_.minor, who, kFormatMajor), kNewer);
      return fail(ErrorCode::unsupported, object_,
                  fmt::format("has header flags {:#x} ({}), known are {:#x}", header_.flags, who, header_.major ? u32{kKnownHeaderFlags} : 0), kNewer);
    }
    out_.format_major = header_.major;
    out_.format_minor = header_.minor;
    out_.encrypted = header_.flags & kEncrypted;
    return {};
  }

  // Whether the sections are at their end; of what arrives, the commit record tells.
  Result<bool> at_end(u64 at) {
    if (!source_.arriving()) return at >= end_;
    STASIS_TRY_SET(const bool commit, frames_.is_commit_at(at));
    if (!commit) return false;
    STASIS_TRY_SET(commit_, frames_.commit_at(at, header_));
    end_ = at;
    return true;
  }

  Result<> walk() {
    std::array<u8, kHeaderSize> header;
    STASIS_TRY(source_.read(0, header));
    add_header(header);
    std::set<std::string, std::less<>> seen;
    for (u64 at = kHeaderSize;;) {
      STASIS_TRY_SET(const bool ended, at_end(at));
      if (ended) break;
      if (out_.sections.size() == kMostSections) return bad(fmt::format("has more than {} sections", kMostSections));
      auto found = frames_.frame(at, end_, out_.sections.empty() ? "" : out_.sections.back().name, commit_.index_offset);
      if (!found && !all_) return std::unexpected(std::move(found).error());
      if (!found) {
        problems_.push_back(std::move(found).error());
        torn_ = true;
        STASIS_TRY_SET(at, next_header(at + 8));
        continue;
      }
      const Frame& frame = *found;
      const SectionHeader& section = frame.header;
      if (sealed_) damaged(in(section.name) + " comes after the seal");
      if (section.name != kSeal) add_header(frame.bytes);
      else root_.add(frame.bytes);
      const bool first = seen.insert(section.name).second;
      if (!first) damaged(in(section.name) + " is there twice");
      out_.sections.push_back({.name = section.name, .version = section.version, .critical = (section.flags & kCritical) != 0,
                               .offset = frame.body, .length = frame.end - frame.body,
                               .digest = section.flags & kRegion ? "" : hex(section.digest)});
      STASIS_TRY(check_zero(frame.at + section.header_bytes(), frame.body, "before " + in(section.name)));
      if (auto taken = first ? take(frame) : Result<>{}; !taken) {
        if (!all_) return taken;
        problems_.push_back(std::move(taken).error());
      }
      STASIS_TRY(check_zero(frame.end, frame.next, "after " + in(section.name)));
      at = frame.next;
    }
    if (!torn_ && out_.sections.size() != commit_.sections)
      damaged(fmt::format("has {} sections, its commit record says {}", out_.sections.size(), commit_.sections));
    if (problems_.empty() && root_.result() != commit_.root) damaged("the section headers do not match the root digest of the commit record");
    return {};
  }

  // Where the next whole section header is, at or after `at`; the end of the sections when there is none.
  Result<u64> next_header(u64 at) const {
    std::vector<u8> piece(kMiB);
    while (at < end_) {
      const u64 size = std::min<u64>(piece.size(), end_ - at);
      STASIS_TRY(source_.read(at, MutableBytes(piece).first(size)));
      for (u64 i = 0; i + kSectionMagic.size() <= size; i += 8)
        if (std::equal(kSectionMagic.begin(), kSectionMagic.end(), piece.begin() + static_cast<std::ptrdiff_t>(i)) && frames_.frame(at + i, end_, "", commit_.index_offset))
          return at + i;
      at += size & ~u64{7};
      if (size < 8) break;
    }
    return end_;
  }

  void add_header(Bytes bytes) {
    root_.add(bytes);
    if (out_.encrypted) headers_.insert(headers_.end(), bytes.begin(), bytes.end());
  }

  Result<> check_zero(u64 from, u64 to, std::string_view what) {
    STASIS_TRY_SET(const bool zero, frames_.is_zero(from, to));
    if (!zero) damaged(fmt::format("the padding {} is not zero", what));
    return {};
  }

  static bool is_ours(std::string_view name) {
    static constexpr std::string_view kOurs[] = {kProducer, kMachine, kParts, kHost, kEncryption, kParent, kNotes, kSeal, kRam, kRamIndex};
    return std::ranges::find(kOurs, name) != std::end(kOurs);
  }

  bool is_of_0_1(const SectionHeader& section, const ListedPart* part) const {
    if (section.name == kEncryption || section.name == kParent || section.name == kNotes || section.name == kSeal || section.flags & kBlocks) return false;
    return part || is_ours(section.name) || !parts_read_;  // what comes before `parts` may be a part, and is told of as such
  }

  // One section: understood, skipped, or a problem.
  Result<> take(const Frame& frame) {
    const SectionHeader& section = frame.header;
    const ListedPart* part = listed(section.name);
    const bool known = is_ours(section.name) || part;
    if (header_.major == 0 && !is_of_0_1(section, part)) damaged(in(section.name) + " is there, which format 0.1 does not have");
    if (in_blocks_ && section.name != kRamIndex && out_.sections[out_.sections.size() - 2].name == kRam) damaged(in(section.name) + " stands between a packed RAM and its index");
    if (part && part->inherited) damaged(in(section.name) + " is there, but is said to be the parent's");
    if (out_.sections.size() == 1 && section.name != kProducer) damaged("section 'producer' is not the first");
    if (section.flags & ~kKnownFlags)
      problem(ErrorCode::unsupported, fmt::format("{} has flags {:#x}, known are {:#x}", in(section.name), section.flags, u32{kKnownFlags}), kNewer);
    if (known && (section.version == 0 || section.version > 1)) {
      problem(ErrorCode::unsupported, fmt::format("{} has version {} ({}), this Stasis reads version 1", in(section.name), section.version,
                                                  written_by(out_.image.producer)), kNewer);
      return {};
    }
    if (!known && (section.flags & kCritical) && (parts_read_ || !all_))
      problem(ErrorCode::unsupported, fmt::format("{} is unknown here and must be understood ({})", in(section.name),
                                                  written_by(out_.image.producer)), kNewer);
    if (!known && section.flags & kRegion && section.digest != Digest{}) damaged(fmt::format("{} is a region with a digest of its own", in(section.name)));
    if (!known) return section.flags & kRegion ? Result<>{} : take_foreign(frame);
    out_.sections.back().known = true;
    const bool region = section.name == kRam;
    const bool critical = section.flags & kCritical, wanted = section.name != kNotes;
    if (region != ((section.flags & kRegion) != 0) || (section.flags & kBlocks && !region) || critical != wanted)
      return damaged(fmt::format("{} has flags {:#x}", in(section.name), section.flags)), Result<>{};
    return region ? take_ram(frame) : take_body(frame, part);
  }

  const ListedPart* listed(std::string_view name) const {
    const auto found = std::ranges::lower_bound(parts_, name, {}, [](const ListedPart& part) { return std::string_view(part.path); });
    return found != parts_.end() && found->path == name ? &*found : nullptr;
  }

  // Not understood, but damage anywhere in the file is told, and a short one is carried along.
  Result<> take_foreign(const Frame& frame) {
    const SectionHeader& section = frame.header;
    STASIS_TRY(count_metadata(section, kMostMetadataBytes));
    if (section.length <= kMostOtherBytes) {
      std::vector<u8> body(section.length);
      STASIS_TRY(source_.read(frame.body, body));
      if (digest_of(body) != section.digest) return damaged(in(section.name) + " does not match its digest"), Result<>{};
      if (const auto clear = opened(section.name, body)) out_.image.foreign.push_back({section.name, section.version, {clear->begin(), clear->end()}});
      return {};
    }
    Hasher hasher;
    std::vector<u8> block(kMiB);
    for (u64 done = 0; done < section.length;) {
      const MutableBytes piece = MutableBytes(block).first(std::min<u64>(block.size(), section.length - done));
      STASIS_TRY(source_.read(frame.body + done, piece));
      hasher.add(piece);
      done += piece.size();
    }
    if (hasher.result() != section.digest) damaged(in(section.name) + " does not match its digest");
    return {};
  }

  Result<> take_ram(const Frame& frame) {
    const bool blocks = frame.header.flags & kBlocks;
    if (out_.encrypted && !blocks) return bad(fmt::format("is encrypted, but section '{}' is not packed", kRam));
    if (source_.arriving() && !problems_.empty()) return refusal();  // before a byte of RAM is waited for
    if (!blocks) {
      const u64 size = frame.header.length;
      if (size == 0 || size % kPageSize || size > kMostRam)
        return bad(fmt::format("section '{}' has {} bytes, allowed are whole pages up to {} GiB", kRam, size, kMostRam / kGiB));
      if (frame.body % kPageSize) return bad(fmt::format("section '{}' begins at byte {}, wanted is a multiple of {}", kRam, frame.body, kPageSize));
      out_.image.ram_size = size;
    }
    if (frame.header.digest != Digest{}) damaged(fmt::format("section '{}' has a digest of its own", kRam));
    out_.ram_offset = frame.body;
    out_.ram_end = frame.end;
    in_blocks_ = blocks;
    return {};
  }

  u64 most_bytes(std::string_view name, bool part) const {
    if (name == kRamIndex) return out_.image.ram_size ? out_.image.ram_size / kPageSize * (8 + 2) + 8192 : kMostMetadataBytes;
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
    STASIS_TRY(count_metadata(section, most_bytes(section.name, part)));
    if (out_.ram_offset && part) damaged(in(section.name) + " comes after the RAM");
    if (part && !options_.bulk && section.length > kBulk && header_.major > 0) {
      if (out_.encrypted && !out_.cipher) return {};
      out_.image.parts.push_back(left_out(*part));
      return {};
    }
    const MutableBytes stored = room_for(section.length);
    STASIS_TRY(source_.read(frame.body, stored));
    if (digest_of(stored) != section.digest) return damaged(in(section.name) + " does not match its digest"), Result<>{};
    const auto body = opened(section.name, stored);
    if (!body) return {};
    if (auto understood = understand(frame, *body, part); !understood) {
      if (section.name == kParts || section.name == kProducer || section.name == kEncryption) return understood;
      problems_.push_back(understood.error());
      problems_.back().message = fmt::format("{}: {}", in(section.name), problems_.back().message);
      problems_.back().object = object_;
    }
    return {};
  }

  static PartRecord left_out(const ListedPart& part) {
    return {.path = part.path, .schema = {.kind = part.kind, .version = static_cast<u16>(part.version), .fields = {}}, .state = {}, .left_out = true,
            .inherited = part.inherited, .state_digest = part.state};
  }

  // The clear body; none: it cannot be had, which is said once.
  std::optional<MutableBytes> opened(const std::string& name, MutableBytes stored) {
    if (!out_.encrypted || name == kProducer || name == kEncryption || name == kSeal) return stored;
    if (!out_.cipher) {
      if (!locked_ && !no_key_) damaged("is encrypted, but has no section 'encryption' before the first encrypted one");
      locked_ = true;
      return {};
    }
    auto clear = out_.cipher->open_section(name, stored);
    if (!clear) damaged(in(name) + " is not what was encrypted with this key");
    return clear;
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
    if (name == kSeal) return check_seal(body);
    STASIS_TRY_SET(cbor::Value value, decode_body(body, where));
    if (name == kProducer) {
      STASIS_TRY_SET(out_.image.producer, producer_from(value, where));
      out_.image.producer.uuid = header_.uuid;
    } else if (name == kEncryption) {
      STASIS_TRY_SET(const EncryptionInfo info, encryption_from(value, where));
      return unlock(info);
    } else if (name == kMachine) {
      STASIS_TRY_SET(out_.image.machine, part_from(std::move(value), name, where));
    } else if (name == kParts) {
      STASIS_TRY_SET(parts_, parts_from(value, header_.major > 0, where));
      for (const ListedPart& listed : parts_)
        if (listed.inherited) out_.image.parts.push_back(left_out(listed));
      parts_read_ = true;
    } else if (name == kHost) {
      STASIS_TRY_SET(out_.image.host, host_from(value, where));
    } else if (name == kParent) {
      STASIS_TRY_SET(out_.parent_link, parent_from(value, where));
    } else if (name == kNotes) {
      STASIS_TRY_SET(out_.image.notes, notes_from(value, where));
    } else if (name == kRamIndex) {
      return take_index(frame, value, where);
    } else {
      STASIS_ASSERT(part);
      const Digest state = state_digest(body, value);
      STASIS_TRY_SET(PartRecord record, part_from(std::move(value), name, where));
      if (record.schema.kind != part->kind || record.schema.version != part->version)
        return fail(ErrorCode::bad_file, where,
                    fmt::format("is {} version {}, section 'parts' says {} version {}", record.schema.kind, record.schema.version, part->kind, part->version),
                    kDamaged);
      if (header_.major > 0 && state != part->state) return fail(ErrorCode::bad_file, where, "has another state than section 'parts' says", kDamaged);
      out_.image.parts.push_back(std::move(record));
    }
    return {};
  }

  Result<> unlock(const EncryptionInfo& info) {
    if (!out_.encrypted) return bad("has a section 'encryption', but its header does not say that it is encrypted");
    no_key_ = all_ && !options_.key;
    if (no_key_) return {};
    if (!options_.key)
      return fail(ErrorCode::usage, object_, fmt::format("is encrypted ({})", written_by(out_.image.producer)), "give its key: --decrypt-key FILE");
    Cipher cipher(*options_.key, info.salt);
    if (cipher.check() != info.check)
      return fail(ErrorCode::usage, object_, fmt::format("was encrypted with another key ({})", written_by(out_.image.producer)), "give the key that it was saved with: --decrypt-key FILE");
    out_.cipher.emplace(cipher);
    return {};
  }

  Result<> check_seal(Bytes body) {
    sealed_ = true;
    if (no_key_) return {};
    if (!out_.cipher) return bad("has a seal, but is not encrypted");
    if (!std::ranges::equal(body, out_.cipher->seal_of_headers(headers_))) return bad("its sections are not those that were encrypted with this key");
    return {};
  }

  Result<> take_index(const Frame& frame, const cbor::Value& value, const std::string& where) {
    if (!out_.ram_offset) return bad("section 'memory/ram/index' comes before 'memory/ram'");
    if (commit_.index_offset && frame.at != commit_.index_offset) damaged(fmt::format("the commit record says that {} is at byte {}, it is at {}", in(kRamIndex), commit_.index_offset, frame.at));
    index_at_ = frame.at;
    if (in_blocks_) {
      STASIS_TRY_SET(const u64 pages, BodyMap(value, where).number("pages"));
      if (pages == 0 || pages > kMostRam / kPageSize)
        return fail(ErrorCode::bad_file, where, fmt::format("field 'pages' is {}, allowed are 1 to {}", pages, kMostRam / kPageSize), kDamaged);
      out_.image.ram_size = pages * kPageSize;
    }
    STASIS_TRY_SET(out_.ram, ram_index_from(value, out_.image.ram_size / kPageSize, out_.parent_link.has_value(), where));
    if ((out_.ram.encoding == Encoding::packed) != in_blocks_)
      return fail(ErrorCode::bad_file, where, fmt::format("field 'encoding' is '{}', which the region is not", name_of(out_.ram.encoding)), kDamaged);
    return in_blocks_ ? check_places(where) : Result<>{};
  }

  // The blocks are one after the other, and the one that ends the region is its end.
  Result<> check_places(const std::string& where) const {
    u64 at = out_.ram_offset;
    for (u64 i = 0; i < out_.ram.chunks.size(); ++i) {
      const ChunkRecord& chunk = out_.ram.chunks[i];
      if (!chunk.present) continue;
      if (chunk.block != at)
        return fail(ErrorCode::bad_file, where, fmt::format("the index says that the block of chunk {} is at byte {}, the one before it ends at byte {}", i, chunk.block, at), kDamaged);
      at += kBlockHeaderSize + align_up(u64{chunk.stored_bytes}, 8);
    }
    if (at + kBlockHeaderSize != out_.ram_end)
      return fail(ErrorCode::bad_file, where, fmt::format("the block that ends the region is at byte {}, the region goes on to byte {}", at, out_.ram_end), kDamaged);
    return {};
  }

  void check_whole() {
    std::vector<std::string_view> missing;
    const auto want = [&](std::string_view name) {
      if (std::ranges::find(out_.sections, name, &SectionInfo::name) == out_.sections.end()) missing.push_back(name);
    };
    for (const std::string_view name : {kProducer, kMachine, kParts, kHost, kRam, kRamIndex}) want(name);
    if (out_.encrypted && !sealed_) missing.push_back(kSeal);
    for (const ListedPart& part : parts_)
      if (!part.inherited) want(part.path);
    for (const SectionInfo& section : out_.sections)  // one that came before `parts` was not known for what it is
      if (const ListedPart* part = listed(section.name); part && !section.known) damaged(in(section.name) + " comes before 'parts'");
    if (missing.size() == 1) damaged(in(missing.front()) + " is missing");
    if (missing.size() > 1) damaged(fmt::format("sections '{}' are missing", fmt::join(missing, "', '")));
    if (index_at_ != commit_.index_offset && !(all_ && (index_at_ == 0 || commit_.index_offset == 0))) damaged("the commit record does not say where the index of the RAM is");
    std::ranges::sort(out_.image.parts, {}, &PartRecord::path);
    if (!out_.parent_link && std::ranges::any_of(parts_, &ListedPart::inherited)) damaged("has parts that are the parent's, but no parent");
    check_content();
  }

  // Format 0.1 does not say what its content is.
  void check_content() {
    if (header_.major == 0 || !index_at_ || out_.ram.chunks.empty() || !parts_read_) return;
    if (const Digest found = content_digest(out_.image.ram_size, out_.ram, parts_); found != out_.ram.content)
      damaged(fmt::format("says that its content is {}, it is {}", hex(out_.ram.content), hex(found)));
  }

  void finish() {
    out_.file_bytes = commit_.length;
    out_.listed = std::move(parts_);
    out_.root = hex(commit_.root);
    if (header_.major == 0 && out_.image.parts.size() == out_.listed.size()) {  // 0.1 does not say these
      for (std::size_t i = 0; i < out_.listed.size(); ++i) out_.listed[i].state = digest_of(cbor::encode(out_.image.parts[i].state));
      out_.ram.content = content_digest(out_.image.ram_size, out_.ram, out_.listed);
    }
    out_.nonzero.reserve(out_.ram.chunks.size());
    out_.chunk_digests.reserve(out_.ram.chunks.size() * sizeof(Digest));
    for (const ChunkRecord& chunk : out_.ram.chunks) {
      out_.nonzero.push_back(chunk.nonzero);
      out_.chunk_digests.insert(out_.chunk_digests.end(), chunk.content.begin(), chunk.content.end());
    }
  }

  const Source& source_;
  const std::string& object_;
  const OpenOptions& options_;
  FrameReader frames_;
  FileHeader header_;
  CommitRecord commit_;
  Hasher root_;
  std::vector<u8> headers_;  // of an encrypted file: what its seal is over
  u64 end_ = 0;              // of the sections, at the latest
  u64 metadata_ = 0, index_at_ = 0;
  bool in_blocks_ = false, sealed_ = false, locked_ = false, parts_read_ = false;
  bool all_ = false;     // examining: every problem is told
  bool no_key_ = false;  // then: encrypted, and nobody gave the key
  bool torn_ = false;    // then: the frame could not be followed from end to end
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

Digest content_digest(u64 ram_size, const RamIndex& ram, const std::vector<ListedPart>& parts) {
  MachineDigest out(ram_size);
  for (u64 i = 0; i < ram.chunks.size(); ++i)
    if (const ChunkRecord& chunk = ram.chunks[i]; chunk.nonzero) out.add_chunk(i, chunk.nonzero, chunk.content);
  for (const ListedPart& part : parts) out.add_part(part.path, part.state);
  return out.result();
}

Result<Decoded> decode(const Source& source, const std::string& object, const OpenOptions& options) {
  return Decoder(source, object, options).run();
}

Examination examine(const Source& source, const std::string& object, const OpenOptions& options) {
  return Decoder(source, object, options).examine();
}

// Header, and the producer as far as it can be read: both keep their form in every version.
Result<Identity> identify(const Source& source, const std::string& object) {
  const FrameReader frames(source, object);
  STASIS_TRY_SET(const FileHeader header, frames.header());
  Identity out{.format_major = header.major, .format_minor = header.minor, .producer = {}};
  if (auto producer = frames.producer()) out.producer = std::move(*producer);
  out.producer.uuid = header.uuid;
  out.complete = frames.commit_at_end(header).has_value();
  out.encrypted = header.major == kFormatMajor && header.flags & kEncrypted;
  return out;
}

}  // namespace stasis::snapshot
