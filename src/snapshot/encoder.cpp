// Encoding a snapshot: header, records, RAM, index, commit record, in one pass.
#include "snapshot/encoder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/text.hpp"
#include "snapshot/bodies.hpp"
#include "snapshot/format.hpp"
#include "snapshot/output.hpp"
#include "snapshot/ram_writer.hpp"
#include "snapshot/reader.hpp"

namespace stasis::snapshot {
namespace {

constexpr u64 kLeastInherited = 64 * kKiB;  // a record shorter than this is not worth a look into the parent

struct Section {
  SectionHeader header;
  cbor::ByteString body;
};

class Encoder {
 public:
  Encoder(Sink& sink, const Image& image, const RamSource& ram, SaveProgress* progress, const SaveOptions& options)
      : sink_(sink), image_(image), ram_(ram), options_(options), out_(sink, progress), machine_digest_(ram.size) {
    if (options.key) cipher_.emplace(*options.key, random_salt());
  }

  Result<SaveReport> run() {
    STASIS_TRY(check());
    RamWriter ram(ram_, options_, cipher_ ? &*cipher_ : nullptr);
    plan(ram);
    STASIS_TRY(check_sizes());
    STASIS_TRY(sink_.announce(file_bytes_, most_stored_));
    STASIS_TRY(out_.tell(0));
    const auto header = to_bytes(FileHeader{.uuid = image_.producer.uuid, .length = file_bytes_, .flags = cipher_ ? u32{kEncrypted} : 0});
    add_to_root(header);
    STASIS_TRY(out_.write(header));
    for (Section& section : before_) STASIS_TRY(put(std::move(section)));
    STASIS_TRY(put_header(ram_header_));
    STASIS_TRY(ram.run(out_));
    STASIS_TRY(check_source(ram.index()));
    finish_digest(ram.index());
    const u64 index_offset = out_.position();
    STASIS_TRY(put(section_of(kRamIndex, cbor::encode(to_value(ram.index())))));
    for (Section& section : after_) STASIS_TRY(put(std::move(section)));
    if (cipher_) STASIS_TRY(put(seal()));
    STASIS_TRY(sink_.settle());
    const CommitRecord commit{.length = out_.position() + kCommitSize, .index_offset = index_offset, .sections = sections_, .root = root_.result()};
    STASIS_TRY(out_.write(to_bytes(commit)));
    STASIS_TRY(sink_.flush());
    STASIS_ASSERT(!file_bytes_ || out_.position() == file_bytes_);
    STASIS_TRY(out_.finish());
    return report(ram.index(), commit);
  }

 private:
  Result<> check() {
    if (ram_.size == 0 || ram_.size % kPageSize || ram_.size > kMostRam || ram_.size != image_.ram_size ||
        ram_.maybe_nonzero.size() != (ram_.size / kPageSize + kChunkPages - 1) / kChunkPages)
      return fail(ErrorCode::state, "snapshot", fmt::format("RAM has {} bytes with {} words of page map, the machine says {} bytes",
                                                            ram_.size, ram_.maybe_nonzero.size(), image_.ram_size));
    if (options_.key && options_.encoding == Encoding::mapped)
      return fail(ErrorCode::usage, "snapshot", "the mapped encoding cannot be encrypted", "use the packed encoding");
    if (options_.level < 0 || options_.level > kMostLevel)
      return fail(ErrorCode::usage, "snapshot", fmt::format("the level is {}, allowed are 0 (not compressed) to {}", options_.level, kMostLevel), "use 1 or 3");
    if (options_.parent && options_.parent->image.ram_size != ram_.size)
      return fail(ErrorCode::usage, options_.parent->path, fmt::format("has {} MiB of RAM, the machine {} MiB: it cannot be its parent",
                                                                       options_.parent->image.ram_size / kMiB, ram_.size / kMiB), "save without a parent");
    u64 ancestors = 0;
    for (const OpenSnapshot* at = options_.parent; at; at = at->parent.get()) ++ancestors;
    if (ancestors > kMostAncestors)
      return fail(ErrorCode::usage, options_.parent->path, fmt::format("has {} ancestors, a snapshot may have {}", ancestors - 1, kMostAncestors),
                  "make one file of it first: stasis snapshot squash");
    if (options_.parent && options_.key && !options_.parent->encrypted)
      return fail(ErrorCode::usage, options_.parent->path, "is not encrypted: who can change it could change the encrypted snapshot that would be its child",
                  "save without a parent, or encrypt that one first: stasis snapshot convert … --encrypt-key FILE");
    return check_names();
  }

  Result<> check_names() {
    for (const PartRecord& part : image_.parts) parts_.push_back(&part);
    std::ranges::sort(parts_, {}, [](const PartRecord* part) { return std::string_view(part->path); });
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      if (!is_section_name(parts_[i]->path) || is_reserved_name(parts_[i]->path))
        return fail(ErrorCode::state, "snapshot", fmt::format("'{}' cannot be the path of a part", parts_[i]->path));
      if (i > 0 && parts_[i]->path == parts_[i - 1]->path)
        return fail(ErrorCode::state, "snapshot", fmt::format("two parts have the path '{}'", parts_[i]->path));
      STASIS_ASSERT(!parts_[i]->left_out);
    }
    return {};
  }

  // As it goes to the file: sealed where there is a key. The digest is of what is stored.
  Section section_of(std::string_view name, cbor::ByteString body, u32 flags = kCritical, u16 version = 1) const {
    const bool clear = !cipher_ || name == kProducer || name == kEncryption || name == kSeal;
    Section out{{.name = std::string(name), .version = version, .flags = flags}, clear ? std::move(body) : cipher_->seal_section(std::string(name), body)};
    out.header.length = out.body.size();
    return out;
  }

  std::vector<ListedPart> list_parts() {
    std::vector<ListedPart> out;
    for (const PartRecord* part : parts_) {
      states_.push_back(cbor::encode(part->state));
      ListedPart listed{.path = part->path, .kind = part->schema.kind, .version = part->schema.version, .state = digest_of(states_.back())};
      listed.inherited = states_.back().size() >= kLeastInherited && parent_has(listed);
      out.push_back(std::move(listed));
    }
    return out;
  }

  // A kernel does not change: a child need not hold it again.
  bool parent_has(const ListedPart& part) const {
    if (!options_.parent) return false;
    const auto& theirs = options_.parent->listed;
    const auto found = std::ranges::find(theirs, part.path, &ListedPart::path);
    return found != theirs.end() && found->kind == part.kind && found->version == part.version && found->state == part.state;
  }

  // Encodes what is not RAM, and so knows the length of a mapped file before its first byte.
  void plan(RamWriter& ram) {
    before_.push_back(section_of(kProducer, cbor::encode(producer_body(image_.producer))));
    if (cipher_) before_.push_back(section_of(kEncryption, cbor::encode(encryption_body({cipher_->salt(), cipher_->check()}))));
    before_.push_back(section_of(kMachine, part_body(image_.machine.schema, cbor::encode(image_.machine.state))));
    const std::vector<ListedPart> listed = list_parts();
    before_.push_back(section_of(kParts, cbor::encode(parts_body(listed))));
    before_.push_back(section_of(kHost, cbor::encode(host_body(image_.host))));
    if (options_.parent) before_.push_back(section_of(kParent, cbor::encode(parent_body(link_to(*options_.parent)))));
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      machine_digest_.add_part(parts_[i]->path, listed[i].state);
      if (!listed[i].inherited) before_.push_back(section_of(parts_[i]->path, part_body(parts_[i]->schema, states_[i])));
    }
    states_.clear();
    if (!image_.notes.empty()) after_.push_back(section_of(kNotes, cbor::encode(notes_body(image_.notes)), 0));
    for (const ForeignSection& foreign : image_.foreign) after_.push_back(section_of(foreign.name, foreign.body, 0, foreign.version));

    const bool mapped = options_.encoding == Encoding::mapped;
    ram_header_ = {.name = std::string(kRam), .flags = kCritical | kRegion, .alignment = mapped ? u32{kPageSize} : u32{kLeastAlignment}, .length = ram_.size};
    if (!mapped) ram_header_.flags |= kBlocks, ram_header_.length = kUnknownLength;
    u64 at = kHeaderSize;
    for (const Section& section : before_) at = section.header.end(at);
    most_stored_ = at + ram.bytes_at_most();
    out_.expect(most_stored_);
    index_bytes_ = cbor::encode(to_value(ram.index())).size();
    most_stored_ += index_bytes_ + (mapped ? 0 : ram.index().chunks.size() * (kBlockHeaderSize + 8));
    if (!mapped) return;
    at = ram_header_.end(at);
    at = SectionHeader{.name = std::string(kRamIndex), .length = index_bytes_}.end(at);
    for (const Section& section : after_) at = section.header.end(at);
    file_bytes_ = at + kCommitSize;
  }

  // Nothing is written that a reader would refuse for its size.
  Result<> check_sizes() const {
    u64 all = 0;
    if (before_.size() + after_.size() + 3 > kMostSections)  // with the RAM, its index and a seal
      return fail(ErrorCode::state, "snapshot", fmt::format("has {} sections, allowed are {}", before_.size() + after_.size() + 3, kMostSections));
    for (const Section& section : after_)
      if (section.header.length > kMostOtherBytes)
        return fail(ErrorCode::state, "snapshot", fmt::format("section '{}' has {} bytes, allowed are {}", section.header.name, section.header.length, kMostOtherBytes));
    for (const Section& section : before_) {
      const bool part = !is_reserved_name(section.header.name);
      const u64 most = part ? kMostPartBytes : kMostOtherBytes;
      all += section.header.length;
      if (section.header.length > most || all > kMostMetadataBytes)
        return fail(ErrorCode::state, "snapshot", fmt::format("section '{}' has {} bytes, allowed are {} here and {} in all",
                                                              section.header.name, section.header.length, most, kMostMetadataBytes));
    }
    if (all + index_bytes_ > kMostMetadataBytes)
      return fail(ErrorCode::state, "snapshot", fmt::format("the index of {} MiB of RAM has {} bytes, allowed are {} with all other sections", ram_.size / kMiB, index_bytes_, kMostMetadataBytes));
    return {};
  }

  void add_to_root(Bytes header) {
    root_.add(header);
    if (cipher_) headers_.insert(headers_.end(), header.begin(), header.end());
  }

  Result<> put_header(const SectionHeader& header) {
    const u64 at = out_.position();
    const std::vector<u8> bytes = to_bytes(header);
    add_to_root(bytes);
    ++sections_;
    STASIS_TRY(out_.write(bytes));
    return out_.pad_to(header.body_offset(at));
  }

  Result<> put(Section section) {
    section.header.digest = digest_of(section.body);
    STASIS_TRY(put_header(section.header));
    STASIS_TRY(out_.write(section.body));
    STASIS_TRY(out_.pad_to(align_up(out_.position(), 8)));
    return out_.step(section.body.size());
  }

  Section seal() const {
    const auto seal = cipher_->seal_of_headers(headers_);
    return section_of(kSeal, {seal.begin(), seal.end()});
  }

  // What was damaged where it came from must not get digests that fit it.
  Result<> check_source(const RamIndex& index) const {
    if (!options_.source) return {};
    const auto& wanted = options_.source->ram.chunks;
    u64 damaged = 0, first = 0;
    for (u64 i = index.chunks.size(); i-- > 0;)
      if (index.chunks[i].nonzero != wanted[i].nonzero || index.chunks[i].content != wanted[i].content) ++damaged, first = i;
    if (!damaged) return {};
    return fail(ErrorCode::bad_file, options_.source->path,
                fmt::format("section '{}' does not match its digests in {} of {} chunks of 256 KiB, the first at RAM offset {:#x}", kRam, damaged,
                            wanted.size(), first * kChunkBytes),
                "the file is damaged: take another copy of it; 'stasis snapshot verify' lists all damage");
  }

  void finish_digest(RamIndex& index) {
    for (u64 i = 0; i < index.chunks.size(); ++i)
      if (index.chunks[i].nonzero) machine_digest_.add_chunk(i, index.chunks[i].nonzero, index.chunks[i].content);
    index.content = machine_digest_.result();
  }

  SaveReport report(const RamIndex& index, const CommitRecord& commit) const {
    SaveReport out{.file_bytes = out_.position(), .stored_bytes = out_.stored(), .root = hex(commit.root), .digest = hex(index.content)};
    for (const ChunkRecord& chunk : index.chunks) {
      out.pages_present += static_cast<u64>(std::popcount(chunk.present));
      out.pages_nonzero += static_cast<u64>(std::popcount(chunk.nonzero));
    }
    return out;
  }

  Sink& sink_;
  const Image& image_;
  const RamSource& ram_;
  const SaveOptions& options_;
  Output out_;
  std::optional<Cipher> cipher_;
  MachineDigest machine_digest_;
  Hasher root_;
  std::vector<u8> headers_;  // what the seal is over
  std::vector<const PartRecord*> parts_;
  std::vector<cbor::ByteString> states_;  // of parts_, while they are wanted
  std::vector<Section> before_, after_;  // the RAM
  SectionHeader ram_header_;
  u64 file_bytes_ = 0, most_stored_ = 0;  // 0: not known before the end
  u64 index_bytes_ = 0;
  u32 sections_ = 0;
};

}  // namespace

// A hint that a reader would refuse is none: names of files may have any bytes.
ParentLink link_to(const OpenSnapshot& parent) {
  const std::size_t slash = parent.path.rfind('/');
  std::string file = slash == parent.path.npos ? parent.path : parent.path.substr(slash + 1);
  if (printable(file) != file || file.find('\n') != file.npos) file.clear();
  return {.content = parent.ram.content, .uuid = parent.image.producer.uuid, .file = std::move(file)};
}

Result<SaveReport> encode(Sink& sink, const Image& image, const RamSource& ram, SaveProgress* progress, const SaveOptions& options) {
  return Encoder(sink, image, ram, progress, options).run();
}

}  // namespace stasis::snapshot
