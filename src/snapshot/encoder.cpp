// Encoding a snapshot: header, records, RAM, index, commit record, in one pass.
#include "snapshot/encoder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "snapshot/bodies.hpp"
#include "snapshot/format.hpp"

namespace stasis::snapshot {
namespace {

constexpr u64 kLongestWrite = 4 * kMiB;
constexpr u64 kProgressStep = 4 * kMiB;
constexpr u8 kZeros[64] = {};

struct Section {
  SectionHeader header;
  cbor::ByteString body;
};

class Encoder {
 public:
  Encoder(Sink& sink, const Image& image, const RamSource& ram, SaveProgress* progress)
      : sink_(sink), image_(image), ram_(ram), progress_(progress), machine_digest_(ram.size) {}

  Result<SaveReport> run() {
    STASIS_TRY(check());
    plan();
    STASIS_TRY(check_sizes());
    STASIS_TRY(sink_.announce(file_bytes_, total_));
    STASIS_TRY(tell(0));
    const auto header = to_bytes(FileHeader{.uuid = image_.producer.uuid, .length = file_bytes_});
    root_.add(header);
    STASIS_TRY(write(header));
    for (Section& section : before_) STASIS_TRY(put(std::move(section)));
    STASIS_TRY(put_ram());
    const u64 index_offset = position_;
    STASIS_TRY(put({named(std::string(kRamIndex), {}), cbor::encode(index_body(pages(), std::move(chunks_)))}));
    STASIS_TRY(sink_.settle());
    const CommitRecord commit{.length = file_bytes_, .index_offset = index_offset, .sections = sections_, .root = root_.result()};
    STASIS_TRY(write(to_bytes(commit)));
    STASIS_ASSERT(position_ == file_bytes_);
    STASIS_TRY(tell(total_));
    return SaveReport{.file_bytes = file_bytes_, .stored_bytes = stored_, .pages_present = pages_present_,
                      .root = hex(commit.root), .digest = machine_digest_.result()};
  }

 private:
  u64 pages() const { return ram_.size / kPageSize; }
  u64 chunks() const { return (pages() + kChunkPages - 1) / kChunkPages; }

  static SectionHeader named(std::string name, Digest digest) { return {.name = std::move(name), .digest = digest}; }

  Result<> check() {
    if (ram_.size == 0 || ram_.size % kPageSize || ram_.size > kMostRam || ram_.size != image_.ram_size ||
        ram_.maybe_nonzero.size() != chunks())
      return fail(ErrorCode::state, "snapshot", fmt::format("RAM has {} bytes with {} words of page map, the machine says {} bytes",
                                                            ram_.size, ram_.maybe_nonzero.size(), image_.ram_size));
    for (const PartRecord& part : image_.parts) parts_.push_back(&part);
    std::ranges::sort(parts_, {}, [](const PartRecord* part) { return std::string_view(part->path); });
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      if (!is_section_name(parts_[i]->path) || is_reserved_name(parts_[i]->path))
        return fail(ErrorCode::state, "snapshot", fmt::format("'{}' cannot be the path of a part", parts_[i]->path));
      if (i > 0 && parts_[i]->path == parts_[i - 1]->path)
        return fail(ErrorCode::state, "snapshot", fmt::format("two parts have the path '{}'", parts_[i]->path));
    }
    return {};
  }

  void add(std::string_view name, cbor::ByteString body) {
    before_.push_back({named(std::string(name), {}), std::move(body)});
  }

  // Encodes what comes before RAM, and so knows the length of the file before its first byte.
  void plan() {
    add(kProducer, cbor::encode(producer_body(image_.producer)));
    add(kMachine, part_body(image_.machine.schema, cbor::encode(image_.machine.state)));
    add(kParts, cbor::encode(parts_body(parts_)));
    add(kHost, cbor::encode(host_body(image_.host)));
    for (const PartRecord* part : parts_) {
      const cbor::ByteString state = cbor::encode(part->state);
      machine_digest_.add_part(part->path, digest_of(state));
      add(part->path, part_body(part->schema, state));
    }
    chunks_.resize(chunks() * kChunkRecord);
    u64 at = kHeaderSize;
    for (Section& section : before_) {
      section.header.length = section.body.size();
      at = section.header.end(at);
    }
    total_ = at;
    ram_header_ = {.name = std::string(kRam), .flags = kCritical | kRegion, .alignment = kPageSize, .length = ram_.size};
    at = ram_header_.end(at);
    SectionHeader index = named(std::string(kRamIndex), {});
    index.length = cbor::encode(index_body(pages(), chunks_)).size();
    file_bytes_ = index.end(at) + kCommitSize;
    total_ += file_bytes_ - at;
    for (u64 i = 0; i < chunks(); ++i) total_ += kPageSize * static_cast<u64>(std::popcount(maybe_nonzero(i)));
  }

  // Nothing is written that a reader would refuse for its size.
  Result<> check_sizes() const {
    u64 all = 0;
    for (const Section& section : before_) {
      const bool part = !is_reserved_name(section.header.name);
      const u64 most = part ? kMostPartBytes : kMostOtherBytes;
      all += section.header.length;
      if (section.header.length > most || all > kMostMetadataBytes)
        return fail(ErrorCode::state, "snapshot", fmt::format("section '{}' has {} bytes, allowed are {} here and {} in all",
                                                              section.header.name, section.header.length, most, kMostMetadataBytes));
    }
    return {};
  }

  u64 maybe_nonzero(u64 chunk) const {
    const u64 in_chunk = std::min(pages() - chunk * kChunkPages, kChunkPages);
    return ram_.maybe_nonzero[chunk] & (in_chunk == 64 ? ~0ull : (1ull << in_chunk) - 1);
  }

  Result<> write(Bytes bytes) {
    position_ += bytes.size();
    stored_ += bytes.size();
    return sink_.write(bytes);
  }

  Result<> pad_to(u64 offset) {
    if (offset - position_ >= sizeof kZeros) {
      const u64 gap = offset - position_;
      position_ = offset;
      return sink_.skip_hole(gap);
    }
    return offset == position_ ? Result<>{} : write({kZeros, offset - position_});
  }

  Result<> put_header(const SectionHeader& header) {
    const u64 at = position_;
    const std::vector<u8> bytes = to_bytes(header);
    root_.add(bytes);
    ++sections_;
    STASIS_TRY(write(bytes));
    return pad_to(header.body_offset(at));
  }

  Result<> put(Section section) {
    section.header.length = section.body.size();
    section.header.digest = digest_of(section.body);
    STASIS_TRY(put_header(section.header));
    STASIS_TRY(write(section.body));
    STASIS_TRY(pad_to(align_up(position_, 8)));
    return step(section.body.size());
  }

  Result<> put_ram() {
    STASIS_TRY(put_header(ram_header_));
    ram_offset_ = position_;
    for (u64 chunk = 0; chunk < chunks(); ++chunk) {
      const u64 maybe = maybe_nonzero(chunk);
      if (!maybe) continue;
      const u64 present = hash_chunk(chunk, maybe);
      STASIS_TRY(queue_chunk(chunk, present));
      STASIS_TRY(step(kPageSize * static_cast<u64>(std::popcount(maybe))));
    }
    STASIS_TRY(flush_run());
    return pad_to(ram_offset_ + ram_.size);
  }

  // Fills the chunk's record in the index; returns its pages that are not zero.
  u64 hash_chunk(u64 chunk, u64 maybe) {
    std::array<u8, kChunkPages * sizeof(Digest)> digests;
    u64 present = 0, count = 0;
    for (u64 rest = maybe; rest; rest &= rest - 1) {
      const u64 bit = static_cast<u64>(std::countr_zero(rest)), index = chunk * kChunkPages + bit;
      const u8* page = ram_.base + index * kPageSize;
      if (is_zero_page(page)) continue;
      const Digest digest = digest_of({page, kPageSize});
      machine_digest_.add_page(index, digest);
      std::ranges::copy(digest, digests.begin() + static_cast<std::ptrdiff_t>(count++ * sizeof(Digest)));
      present |= 1ull << bit;
    }
    if (!present) return 0;
    pages_present_ += count;
    u8* record = &chunks_[chunk * kChunkRecord];
    for (unsigned i = 0; i < 8; ++i) record[i] = static_cast<u8>(present >> (8 * i));
    std::ranges::copy(digest_of(Bytes(digests).first(count * sizeof(Digest))), record + 16);
    return present;
  }

  // Adjacent pages are written together, across chunks too.
  Result<> queue_chunk(u64 chunk, u64 present) {
    for (u64 rest = present; rest;) {
      const unsigned first = static_cast<unsigned>(std::countr_zero(rest));
      const unsigned count = static_cast<unsigned>(std::countr_one(rest >> first));
      const u64 begin = (chunk * kChunkPages + first) * kPageSize, bytes = count * kPageSize;
      if (begin != run_end_ || run_end_ - run_begin_ + bytes > kLongestWrite) {
        STASIS_TRY(flush_run());
        run_begin_ = begin;
      }
      run_end_ = begin + bytes;
      rest = first + count == 64 ? 0 : rest & (~0ull << (first + count));
    }
    return {};
  }

  Result<> flush_run() {
    if (run_begin_ == run_end_) return {};
    STASIS_TRY(pad_to(ram_offset_ + run_begin_));
    STASIS_TRY(write({ram_.base + run_begin_, run_end_ - run_begin_}));
    run_begin_ = run_end_;
    return {};
  }

  Result<> step(u64 bytes) {
    done_ += bytes;
    if (!progress_ || !progress_->step || done_ - told_ < kProgressStep) return {};
    told_ = done_;
    return tell(done_);
  }

  Result<> tell(u64 done) {
    if (!progress_ || !progress_->step || progress_->step(std::min(done, total_), total_)) return {};
    return fail(ErrorCode::cancelled, "snapshot", "saving was cancelled");
  }

  Sink& sink_;
  const Image& image_;
  const RamSource& ram_;
  SaveProgress* progress_;
  MachineDigest machine_digest_;
  Hasher root_;
  std::vector<const PartRecord*> parts_;
  std::vector<Section> before_;
  SectionHeader ram_header_;
  std::vector<u8> chunks_;
  u64 file_bytes_ = 0, total_ = 0, done_ = 0, told_ = 0;
  u64 position_ = 0, stored_ = 0, ram_offset_ = 0, pages_present_ = 0;
  u64 run_begin_ = 0, run_end_ = 0;  // RAM offsets of what is to be written next
  u32 sections_ = 0;
};

}  // namespace

Result<SaveReport> encode(Sink& sink, const Image& image, const RamSource& ram, SaveProgress* progress) {
  return Encoder(sink, image, ram, progress).run();
}

}  // namespace stasis::snapshot
