// Reading saved RAM as a whole: into memory, and against its digests.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <mutex>

#include "snapshot/format.hpp"
#include "snapshot/parallel.hpp"
#include "snapshot/ram_hash.hpp"
#include "snapshot/ram_reader.hpp"
#include "snapshot/reader.hpp"

namespace stasis::snapshot {
namespace {

constexpr u64 kBatch = 64;  // chunks between looks at the progress

// One reader for each worker, made by it.
class Readers {
 public:
  explicit Readers(const OpenSnapshot& snapshot) : snapshot_(snapshot), readers_(default_threads()) {}
  unsigned threads() const { return static_cast<unsigned>(readers_.size()); }
  RamReader& of(unsigned worker) {
    if (!readers_[worker]) readers_[worker] = std::make_unique<RamReader>(snapshot_);
    return *readers_[worker];
  }

 private:
  const OpenSnapshot& snapshot_;
  std::vector<std::unique_ptr<RamReader>> readers_;
};

// The first error of many workers.
class FirstError {
 public:
  void add(Error error) {
    const std::lock_guard lock(mutex_);
    if (!any_.exchange(true)) error_ = std::move(error);
  }
  bool any() const { return any_; }
  Result<> result() const { return any_ ? Result<>(std::unexpected(error_)) : Result<>{}; }

 private:
  std::mutex mutex_;
  std::atomic<bool> any_{false};
  Error error_{};
};

// Damaged chunks as ranges of RAM offsets; says the first few.
class Damage {
 public:
  void add(u64 chunk) {
    const std::lock_guard lock(mutex_);
    chunks_.push_back(chunk);
  }
  Result<> result(const std::string& object, std::string_view what) {
    if (chunks_.empty()) return {};
    std::ranges::sort(chunks_);
    std::string where;
    std::size_t told = 0;
    for (std::size_t i = 0; i < chunks_.size() && told < 8; ++told) {
      std::size_t end = i + 1;
      while (end < chunks_.size() && chunks_[end] == chunks_[end - 1] + 1) ++end;
      where += fmt::format("{}{:#x} to {:#x}", where.empty() ? "" : ", ", chunks_[i] * kChunkBytes, (chunks_[end - 1] + 1) * kChunkBytes - 1);
      i = end;
    }
    return fail(ErrorCode::bad_file, object,
                fmt::format("section '{}' does not match {} at RAM offsets {} ({} of 256 KiB)", kRam, what, where, chunks_.size()),
                "the file is damaged: take another copy of it");
  }

 private:
  std::mutex mutex_;
  std::vector<u64> chunks_;
};

u64 all_of(const RamIndex& index, u64 chunk) {
  const u64 pages = index.pages_in(chunk);
  return pages == 64 ? ~0ull : (1ull << pages) - 1;
}

// work(chunk, worker) for all chunks, with progress; `share` of the whole that begins at `from` (both in bytes of RAM).
template <class Work>
Result<> for_each_chunk(const OpenSnapshot& snapshot, unsigned threads, SaveProgress* progress, u64 from, u64 total, const Work& work) {
  const u64 count = snapshot.ram.chunks.size();
  for (u64 first = 0; first < count; first += kBatch) {
    if (progress && progress->step && !progress->step(from + first * kChunkBytes, total))
      return fail(ErrorCode::cancelled, snapshot.path, "reading was cancelled");
    in_parallel(std::min(kBatch, count - first), threads, [&](u64 i, unsigned worker) { work(first + i, worker); });
  }
  return {};
}

// Bytes of a mapped region that no page is held in must be zeros: whoever maps it gives them to the guest.
bool gaps_are_zero(const OpenSnapshot& snapshot, u64 chunk, std::vector<u8>& buffer) {
  const u64 begin = snapshot.ram_offset + chunk * kChunkBytes, gaps = all_of(snapshot.ram, chunk) & ~snapshot.ram.chunks[chunk].present;
  const u64 end = begin + snapshot.ram.pages_in(chunk) * kPageSize;
  if (!gaps || snapshot.source->next_data(begin) >= end) return true;
  buffer.resize(kPageSize);
  for (u64 rest = gaps; rest; rest &= rest - 1) {
    const u64 at = begin + static_cast<u64>(std::countr_zero(rest)) * kPageSize;
    if (!snapshot.source->read(at, buffer) || !is_zero_page(buffer.data())) return false;
  }
  return true;
}

// What this one file holds, against the digests of what it holds.
Result<> verify_stored(const OpenSnapshot& snapshot, SaveProgress* progress, u64 from, u64 total) {
  Readers readers(snapshot);
  std::vector<std::vector<u8>> buffers(readers.threads());
  Damage damage;
  STASIS_TRY(for_each_chunk(snapshot, readers.threads(), progress, from, total, [&](u64 chunk, unsigned worker) {
    const ChunkRecord& record = snapshot.ram.chunks[chunk];
    std::vector<u8>& buffer = buffers[worker];
    bool whole = snapshot.ram.encoding != Encoding::mapped || gaps_are_zero(snapshot, chunk, buffer);
    buffer.resize(kChunkBytes);
    const u64 looked_at = record.in_parent ? record.present : record.nonzero;
    if (const auto read = readers.of(worker).read(chunk, looked_at, buffer.data()); !read) whole = false;
    if (whole && looked_at) {
      const HashedChunk hashed = hash_chunk(buffer.data(), looked_at);
      whole = hashed.nonzero == looked_at && (record.in_parent || hashed.content == record.content);  // a page of zeros has the state zero
      if (snapshot.ram.incremental) whole = whole && digest_over(hashed, record.present) == record.stored;
    }
    if (!whole) damage.add(chunk);
  }));
  return damage.result(snapshot.path, "its digests");
}

// The whole content, with what is in parents.
Result<> verify_content(const OpenSnapshot& snapshot, SaveProgress* progress, u64 from, u64 total) {
  Readers readers(snapshot);
  std::vector<std::vector<u8>> buffers(readers.threads());
  Damage damage;
  STASIS_TRY(for_each_chunk(snapshot, readers.threads(), progress, from, total, [&](u64 chunk, unsigned worker) {
    const ChunkRecord& record = snapshot.ram.chunks[chunk];
    if (!record.in_parent) return;
    std::vector<u8>& buffer = buffers[worker];
    buffer.resize(kChunkBytes);
    const auto read = readers.of(worker).read(chunk, record.nonzero, buffer.data());
    const HashedChunk hashed = read ? hash_chunk(buffer.data(), record.nonzero) : HashedChunk{};
    if (!read || hashed.nonzero != record.nonzero || hashed.content != record.content) damage.add(chunk);
  }));
  return damage.result(snapshot.path, "its digests, together with its parents,");
}

}  // namespace

Result<> load_ram(const OpenSnapshot& snapshot, u8* ram, bool over_root, SaveProgress* progress) {
  Readers readers(snapshot);
  const OpenSnapshot& root = root_of(snapshot);
  FirstError error;
  STASIS_TRY(for_each_chunk(snapshot, readers.threads(), progress, 0, snapshot.image.ram_size, [&](u64 chunk, unsigned worker) {
    if (error.any()) return;
    const ChunkRecord& record = snapshot.ram.chunks[chunk];
    u64 there = over_root ? root.ram.chunks[chunk].nonzero : 0;  // what the memory has already: right, or to be overwritten
    u64 right = there;
    for (const OpenSnapshot* at = &snapshot; over_root && at->parent; at = at->parent.get()) right &= at->ram.chunks[chunk].in_parent;
    u8* to = ram + chunk * kChunkBytes;
    if (const auto read = readers.of(worker).read(chunk, (record.nonzero | there) & ~right, to); !read) error.add(read.error());
  }));
  if (progress && progress->step) (void)progress->step(snapshot.image.ram_size, snapshot.image.ram_size);
  return error.result();
}

Result<std::vector<Error>> ram_problems(const OpenSnapshot& snapshot, SaveProgress* progress) {
  const u64 size = snapshot.image.ram_size;
  u64 files = 0, from = 0;
  for (const OpenSnapshot* at = &snapshot; at; at = at->parent.get()) ++files;
  const u64 total = size * (files + (files > 1));
  std::vector<Error> problems;
  const auto take = [&](Result<> checked) -> Result<> {
    if (checked || checked.error().code == ErrorCode::cancelled) return checked;
    return problems.push_back(std::move(checked).error()), Result<>{};
  };
  for (const OpenSnapshot* at = &snapshot; at; at = at->parent.get(), from += size) STASIS_TRY(take(verify_stored(*at, progress, from, total)));
  if (snapshot.parent) STASIS_TRY(take(verify_content(snapshot, progress, from, total)));
  if (progress && progress->step) (void)progress->step(total, total);
  return problems;
}

Result<> verify_ram(const OpenSnapshot& snapshot, SaveProgress* progress) {
  STASIS_TRY_SET(const std::vector<Error> problems, ram_problems(snapshot, progress));
  return problems.empty() ? Result<>{} : Result<>(std::unexpected(problems.front()));
}

Result<std::string> digest(const OpenSnapshot& snapshot, SaveProgress* progress) {
  STASIS_TRY(verify_ram(snapshot, progress));
  return hex(snapshot.ram.content);
}

}  // namespace stasis::snapshot
