// Decoded blocks by physical address and mode, and self-modifying code.
#pragma once

#include <Zydis/Zydis.h>

#include <memory>
#include <unordered_map>
#include <vector>

#include "cpu/soft/block.hpp"

namespace stasis::soft {

class Mmu;
class ThunkCache;

// What a block was decoded for: code width 0, 1, 2 (16, 32, 64 bits), + 4 when the stack pointer has 32 bits.
class CodeCache {
 public:
  static constexpr unsigned kMostOps = 64;

  CodeCache(Cpu& cpu, Mmu& mmu, ThunkCache& thunks);
  ~CodeCache();
  CodeCache(const CodeCache&) = delete;
  CodeCache& operator=(const CodeCache&) = delete;

  // Null when there is none.
  Block* find(u64 physical, u32 mode) const;
  // Decodes from `physical` (in RAM). Null when the first instruction reaches into the next page and
  // `second_page` (its physical address) was not given.
  static constexpr u64 kUnknown = ~0ull;
  Block* decode(u64 physical, u64 second_page, u32 mode);
  void drop(Block* block);
  void drop_all();
  void forget_links();
  // RAM that decoded code was made from has changed: drops what overlaps and ends the running block behind `op`.
  void stored(u64 physical, u64 size, const Op* op);
  // Frees what was dropped; when no block runs and no pointer to one is kept.
  void collect();

  // A block of the first `count` instructions of `block`, or of one op of it alone; valid until the next call.
  Block* cut(const Block& block, unsigned count);
  Block* single(const Block& block, const Op& op);

 private:
  static constexpr u64 kMostBytes = 64 * kMiB;
  static constexpr unsigned kBucketBits = 16;
  static constexpr unsigned kDataAfter = 8;  // hits: the page is no code any more
  struct Page {
    u64 granules = 0;  // 64-byte pieces that blocks were made from
    std::vector<Block*> blocks;
    unsigned hits = 0;  // stores that dropped something
  };
  static u64 bucket_of(u64 physical, u32 mode) { return ((physical ^ physical >> 16) + mode) & ((1u << kBucketBits) - 1); }
  static Block* allocate(unsigned count);
  Block* bind(const u8* bytes, unsigned size, u64 physical, u32 mode);
  void bind_one(const struct Decoded& in, Op& op, bool& ends, bool& alone);
  void insert(Block* block);
  void leave_page(Block* block, u64 page);
  static bool overlaps(const Block& block, u64 physical, u64 size);
  static u64 granules_of(const Block& block, u64 page_address);

  Cpu& cpu_;
  Mmu& mmu_;
  ThunkCache& thunks_;
  ZydisDecoder decoders_[3];
  std::vector<Block*> buckets_;
  std::unordered_map<u64, Page> pages_;  // by physical page address
  std::vector<Block*> dropped_;
  u64 bytes_ = 0;
  Block* scratch_;
};

}  // namespace stasis::soft
