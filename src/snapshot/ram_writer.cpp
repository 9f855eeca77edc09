// Hashing, comparing, packing and writing RAM, a batch of chunks at a time.
#include "snapshot/ram_writer.hpp"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "snapshot/parallel.hpp"
#include "snapshot/ram_reader.hpp"

namespace stasis::snapshot {
namespace {

constexpr u64 kBatch = 64;               // chunks: 16 MiB of RAM
constexpr u64 kLongestWrite = 4 * kMiB;  // of adjacent mapped pages

unsigned lowest(u64 bits) { return static_cast<unsigned>(std::countr_zero(bits)); }
u64 page_bytes(u64 pages) { return kPageSize * static_cast<u64>(std::popcount(pages)); }

}  // namespace

struct RamWriter::Work {
  u64 chunk = 0, maybe = 0;
  HashedChunk hashed;
  ChunkRecord record;
  std::vector<u8> block;       // packed: header and stored bytes
  std::optional<Error> error;  // the parent could not be read
};

// Pages seen so far, to find equal ones: open addressing over page numbers, hashed by digest and compared byte for byte.
class RamWriter::Duplicates {
 public:
  explicit Duplicates(u64 pages) : slots_(std::bit_ceil(2 * std::max<u64>(pages, 8))) {}

  // The earlier page that equals this one, or none; then this one is remembered.
  std::optional<u64> find_or_add(const u8* ram, u64 page, const Digest& digest) {
    constexpr unsigned kMostTries = 32;  // a guest that makes digests collide gets no dearer saves, only larger ones
    u64 at = 0;
    std::memcpy(&at, digest.data(), sizeof at);
    for (unsigned tries = 0; tries < kMostTries; ++tries, ++at) {
      u32& slot = slots_[at & (slots_.size() - 1)];
      if (slot == 0) {
        slot = static_cast<u32>(page + 1);
        return {};
      }
      const u64 other = slot - 1;
      if (std::memcmp(ram + other * kPageSize, ram + page * kPageSize, kPageSize) == 0) return other;
    }
    return {};
  }

 private:
  std::vector<u32> slots_;  // page number and one; 0: free
};

// What one worker needs to make blocks and to read the parent.
class RamWriter::Packer {
 public:
  Packer(const SaveOptions& options, const Cipher* cipher)
      : cipher_(cipher), compress_(options.encoding == Encoding::packed && options.level > 0) {
    if (options.parent) parent_.emplace(*options.parent);
    if (!compress_) return;
    context_.reset(::ZSTD_createCCtx());
    STASIS_ASSERT(context_);
    ::ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, options.level);
  }

  // The block of the pages of `present`.
  void pack(const u8* chunk, u64 number, u64 present, std::vector<u8>& block) {
    const Bytes clear = gather(chunk, present);
    Bytes packed = clear;
    if (compress_) {
      packed_.resize(::ZSTD_compressBound(clear.size()));
      const std::size_t size = ::ZSTD_compress2(context_.get(), packed_.data(), packed_.size(), clear.data(), clear.size());
      if (!::ZSTD_isError(size) && size < clear.size()) packed = Bytes(packed_).first(size);
    }
    const u64 stored = packed.size() + (cipher_ ? Cipher::kOverhead : 0);
    block.resize(kBlockHeaderSize + stored);
    const MutableBytes out = MutableBytes(block).subspan(kBlockHeaderSize);
    if (cipher_) cipher_->seal_chunk(number, packed, out);
    else std::ranges::copy(packed, out.begin());
    BlockHeader header{.chunk = number, .stored = static_cast<u32>(stored)};
    header.digest = block_digest(header, out);
    std::ranges::copy(to_bytes(header), block.begin());
  }

  // Which pages of `candidates` the parent has just so.
  Result<u64> equal_in_parent(const u8* chunk, u64 number, u64 candidates) {
    if (!candidates) return 0;
    theirs_.resize(kChunkBytes);
    STASIS_TRY(parent_->read(number, candidates, theirs_.data()));
    u64 equal = 0;
    for (u64 rest = candidates; rest; rest &= rest - 1) {
      const u64 at = lowest(rest) * kPageSize;
      if (std::memcmp(chunk + at, theirs_.data() + at, kPageSize) == 0) equal |= 1ull << lowest(rest);
    }
    return equal;
  }

 private:
  struct Free {
    void operator()(ZSTD_CCtx* context) const { ::ZSTD_freeCCtx(context); }
  };

  Bytes gather(const u8* chunk, u64 present) {
    const u64 size = page_bytes(present);
    const unsigned first = lowest(present);
    if (static_cast<unsigned>(std::countr_one(present >> first)) * kPageSize == size) return {chunk + first * kPageSize, size};
    gathered_.resize(kChunkBytes);
    u8* to = gathered_.data();
    for (u64 rest = present; rest; rest &= rest - 1, to += kPageSize) std::memcpy(to, chunk + lowest(rest) * kPageSize, kPageSize);
    return Bytes(gathered_).first(size);
  }

  const Cipher* cipher_;
  bool compress_;
  std::optional<RamReader> parent_;
  std::unique_ptr<ZSTD_CCtx, Free> context_;
  std::vector<u8> gathered_, packed_, theirs_;
};

RamWriter::RamWriter(const RamSource& ram, const SaveOptions& options, const Cipher* cipher)
    : ram_(ram), options_(options), threads_(options.threads ? options.threads : default_threads()) {
  index_ = {.encoding = options.encoding, .incremental = options.parent != nullptr, .pages = ram.size / kPageSize};
  index_.chunks.resize(index_.chunk_count());
  if (options.encoding == Encoding::packed) duplicates_ = std::make_unique<Duplicates>(bytes_at_most() / kPageSize);
  for (unsigned i = 0; i < threads_; ++i) packers_.push_back(std::make_unique<Packer>(options, cipher));
}

RamWriter::~RamWriter() = default;

u64 RamWriter::maybe_nonzero(u64 chunk) const {
  const u64 in_chunk = index_.pages_in(chunk);
  return ram_.maybe_nonzero[chunk] & (in_chunk == 64 ? ~0ull : (1ull << in_chunk) - 1);
}

bool RamWriter::unchanged(u64 chunk) const { return options_.parent && options_.dirty && (*options_.dirty)[chunk] == 0; }

u64 RamWriter::bytes_at_most() const {
  u64 out = 0;
  for (u64 chunk = 0; chunk < index_.chunks.size(); ++chunk)
    if (!unchanged(chunk)) out += page_bytes(maybe_nonzero(chunk));
  return out;
}

// Three batches are under way: the chunks of one are looked at while those of the one before it are packed, and the one
// before that is written.
Result<> RamWriter::run(Output& out) {
  region_ = out.position();
  const u64 batches = (index_.chunks.size() + kBatch - 1) / kBatch;
  std::array<std::vector<Work>, 3> slots;
  for (u64 step = 0; step < batches + 2; ++step) {
    std::vector<Work>&looked_at = slots[step % 3], &packed = slots[(step + 2) % 3], &written = slots[(step + 1) % 3];
    take(step, looked_at);
    Result<> wrote;
    in_parallel(
        packed.size() + looked_at.size(), threads_,
        [&](u64 i, unsigned worker) { i < packed.size() ? pack(packed[i], worker) : look_at(looked_at[i - packed.size()], worker); },
        [&] { wrote = write(out, written); });
    STASIS_TRY(wrote);
    for (Work& work : looked_at) {
      if (work.error) return std::unexpected(*work.error);
      if (duplicates_) find_duplicates(work);
    }
  }
  index_.for_lookup();
  if (duplicates_) return out.write(to_bytes(BlockHeader{.digest = block_digest({}, {})}));
  STASIS_TRY(flush_run(out));
  return out.pad_to(region_ + ram_.size);
}

// The chunks of a batch; none after the last one.
void RamWriter::take(u64 batch, std::vector<Work>& out) const {
  const u64 first = std::min<u64>(batch * kBatch, index_.chunks.size());
  out.resize(std::min(kBatch, index_.chunks.size() - first));
  for (u64 i = 0; i < out.size(); ++i) out[i].chunk = first + i, out[i].maybe = maybe_nonzero(first + i);
}

void RamWriter::pack(Work& work, unsigned worker) {
  if (!duplicates_ || !work.record.present) return;
  packers_[worker]->pack(ram_.base + work.chunk * kChunkBytes, work.chunk, work.record.present, work.block);
}

Result<> RamWriter::write(Output& out, std::vector<Work>& batch) {
  for (Work& work : batch) {
    STASIS_TRY(duplicates_ ? write_packed(out, work) : write_mapped(out, work));
    index_.chunks[work.chunk] = work.record;
    STASIS_TRY(out.step(unchanged(work.chunk) ? 0 : page_bytes(work.maybe)));
  }
  return {};
}

// Fills the chunk's record, but for where it will be.
void RamWriter::look_at(Work& work, unsigned worker) {
  work.error.reset();
  const ChunkRecord* before = options_.parent ? &options_.parent->ram.chunks[work.chunk] : nullptr;
  if (!unchanged(work.chunk)) {
    work.hashed = hash_chunk(ram_.base + work.chunk * kChunkBytes, work.maybe);
    work.record = {.nonzero = work.hashed.nonzero, .present = work.hashed.nonzero, .content = work.hashed.content, .stored = work.hashed.content};
    if (!before) return;
  }
  if (unchanged(work.chunk)) {
    work.record = {.nonzero = before->nonzero, .in_parent = before->nonzero, .content = before->content};
    return;
  }
  auto same = as_in_parent(work, *before, worker);
  if (!same) {
    work.error = std::move(same).error();
    return;
  }
  work.record.in_parent = *same;
  work.record.present &= ~work.record.in_parent;
  work.record.stored = digest_over(work.hashed, work.record.present);
}

// Where it is known what was written to, the parent is read only for chunks that seem to be as they were; equal digests
// alone prove nothing, for a guest can make them.
Result<u64> RamWriter::as_in_parent(const Work& work, const ChunkRecord& before, unsigned worker) {
  const u64 candidates = work.record.nonzero & before.nonzero;
  const u64 untouched = options_.dirty ? candidates & ~(*options_.dirty)[work.chunk] : 0;
  if (options_.dirty && (before.nonzero != work.record.nonzero || before.content != work.record.content)) return untouched;
  STASIS_TRY_SET(const u64 equal, packers_[worker]->equal_in_parent(ram_.base + work.chunk * kChunkBytes, work.chunk, candidates & ~untouched));
  return untouched | equal;
}

void RamWriter::find_duplicates(Work& work) {
  for (u64 rest = work.record.present; rest; rest &= rest - 1) {
    const unsigned bit = lowest(rest);
    const auto other = duplicates_->find_or_add(ram_.base, work.chunk * kChunkPages + bit, work.hashed.pages[bit]);
    if (!other) continue;
    index_.same_as.push_back(*other);
    work.record.same_as |= 1ull << bit;
  }
  if (!work.record.same_as) return;
  work.record.present &= ~work.record.same_as;
  work.record.stored = digest_over(work.hashed, work.record.present);
}

Result<> RamWriter::write_packed(Output& out, Work& work) {
  if (!work.record.present) return {};
  work.record.block = out.position();
  work.record.stored_bytes = static_cast<u32>(work.block.size() - kBlockHeaderSize);
  STASIS_TRY(out.write(work.block));
  return out.pad_to(align_up(out.position(), 8));
}

// Adjacent pages are written together, across chunks too.
Result<> RamWriter::write_mapped(Output& out, const Work& work) {
  for (u64 rest = work.record.present; rest;) {
    const unsigned first = lowest(rest), count = static_cast<unsigned>(std::countr_one(rest >> first));
    const u64 begin = (work.chunk * kChunkPages + first) * kPageSize, bytes = count * kPageSize;
    if (begin != run_end_ || run_end_ - run_begin_ + bytes > kLongestWrite) {
      STASIS_TRY(flush_run(out));
      run_begin_ = begin;
    }
    run_end_ = begin + bytes;
    rest = first + count == 64 ? 0 : rest & (~0ull << (first + count));
  }
  return {};
}

Result<> RamWriter::flush_run(Output& out) {
  if (run_begin_ == run_end_) return {};
  STASIS_TRY(out.pad_to(region_ + run_begin_));
  STASIS_TRY(out.write({ram_.base + run_begin_, run_end_ - run_begin_}));
  run_begin_ = run_end_;
  return {};
}

}  // namespace stasis::snapshot
