// Decoded blocks by physical address and mode, and self-modifying code.
#include "cpu/soft/code_cache.hpp"

#include <algorithm>
#include <new>

#include "base/error.hpp"
#include "cpu/soft/bind.hpp"
#include "cpu/soft/mmu.hpp"

namespace stasis::soft {
namespace {

void undefined_instruction(Cpu& cpu, const Op* op) { cpu.raise(op, kUd); }
void too_long(Cpu& cpu, const Op* op) { cpu.raise(op, kGp, 0); }
// Behind the last instruction of a block.
void fall_through(Cpu& cpu, const Op* op) {
  const u64 to = cpu.rip_of(op);
  STASIS_GO_LINK(cpu, to, 0);
}
// Behind a cut block: back to the run loop.
void stop_here(Cpu& cpu, const Op* op) { cpu.rip = cpu.rip_of(op); }

void set_stub(Op& op, Handler fn, unsigned at, unsigned position) {
  op = {};
  op.fn = fn;
  op.at = static_cast<u16>(at);
  op.position = static_cast<u8>(position);
}

}  // namespace

CodeCache::CodeCache(Cpu& cpu, Mmu& mmu, ThunkCache& thunks)
    : cpu_(cpu), mmu_(mmu), thunks_(thunks), buckets_(1u << kBucketBits), scratch_(allocate(kMostOps)) {
  ZydisDecoderInit(&decoders_[0], ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16);
  ZydisDecoderInit(&decoders_[1], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
  ZydisDecoderInit(&decoders_[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  for (ZydisDecoder& decoder : decoders_)  // instructions that this CPU does not know, in their older meaning
    for (const ZydisDecoderMode mode : {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_LZCNT,
                                        ZYDIS_DECODER_MODE_TZCNT, ZYDIS_DECODER_MODE_WBNOINVD, ZYDIS_DECODER_MODE_CLDEMOTE})
      ZydisDecoderEnableMode(&decoder, mode, ZYAN_FALSE);
}

CodeCache::~CodeCache() {
  drop_all();
  collect();
  ::operator delete(scratch_);
}

Block* CodeCache::allocate(unsigned count) {
  auto* block = new (::operator new(sizeof(Block) + count * sizeof(Op))) Block;
  for (unsigned i = 1; i <= count; ++i) new (&block->ops[i]) Op;
  return block;
}

Block* CodeCache::find(u64 physical, u32 mode) const {
  Block* block = buckets_[bucket_of(physical, mode)];
  while (block && (block->physical != physical || block->mode != mode)) block = block->next_in_bucket;
  return block;
}

void CodeCache::bind_one(const Decoded& in, Op& op, bool& ends, bool& alone) {
  const ZydisInstructionEncoding encoding = in.instruction.encoding;
  Bound bound = Bound::no;
  if (encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
    const auto fresh = [&] {
      const Op kept = op;
      op = {};
      op.at = kept.at, op.position = kept.position, op.length = kept.length;
      return true;
    };
    (bound = bind_control_flow(in, op)) != Bound::no || (fresh() && (bound = bind_system(in, op)) != Bound::no) ||
        (fresh() && (bound = bind_integer(in, op)) != Bound::no) || (fresh() && (bound = bind_string(in, op)) != Bound::no) ||
        (fresh() && (bound = bind_vector(in, op)) != Bound::no) || fresh();
  }
  if (bound == Bound::no) {
    op.fn = undefined_instruction;
    bound = Bound::ends;
  }
  ends = bound != Bound::goes_on;
  alone = bound == Bound::alone;
}

Block* CodeCache::bind(const u8* bytes, unsigned size, u64 physical, u32 mode) {
  Op ops[kMostOps + 1];
  const unsigned width = mode & 3;
  Decoded in{.instruction = {}, .operands = {}, .bytes = bytes, .long_mode = width == 2,
             .stack_bytes = width == 2 ? 8u : mode & 4 ? 4u : 2u, .thunks = thunks_};
  unsigned at = 0, count = 0, looked_at = 0;
  bool ends = false, block_alone = false;
  while (!ends && count < kMostOps && at < size) {
    Op& op = ops[count];
    op = {};
    op.at = static_cast<u16>(at);
    op.position = static_cast<u8>(count);
    const ZyanStatus status =
        ZydisDecoderDecodeFull(&decoders_[width], bytes + at, std::min(size - at, 15u), &in.instruction, in.operands);
    bool alone = false;
    if (status == ZYDIS_STATUS_NO_MORE_DATA && size - at < 15) break;  // reaches into the next page
    if (ZYAN_SUCCESS(status)) {
      op.length = in.instruction.length;
      in.bytes = bytes + at;
      bind_one(in, op, ends, alone);
    } else {
      op.fn = status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG || status == ZYDIS_STATUS_NO_MORE_DATA ? too_long : undefined_instruction;
      op.length = 1;
      ends = true;
      looked_at = std::min(size - at, 15u);  // any of these bytes may be why
    }
    if (alone && count > 0) {  // it starts a block of its own
      ends = false;
      break;
    }
    block_alone = alone;
    at += looked_at ? looked_at : op.length;
    ++count;
  }
  if (count == 0) return nullptr;
  Block* block = allocate(count);
  std::copy_n(ops, count, block->ops);
  set_stub(block->ops[count], fall_through, at, count);
  block->count = static_cast<u16>(count);
  block->bytes = static_cast<u16>(at);
  block->alone = block_alone;
  block->mode = mode;
  block->physical = physical;
  return block;
}

Block* CodeCache::decode(u64 physical, u64 second_page, u32 mode) {
  if (bytes_ > kMostBytes) drop_all();
  const u8* const bytes = mmu_.host_of_page(mmu_.page_of(physical)) + (physical & 0xfff);
  const unsigned size = 0x1000 - (physical & 0xfff);
  Block* block = bind(bytes, size, physical, mode);
  if (!block) {
    if (second_page == kUnknown) return nullptr;
    u8 joined[16] = {};
    std::memcpy(joined, bytes, size);
    std::memcpy(joined + size, mmu_.host_of_page(mmu_.page_of(second_page)), 16 - size);
    // One instruction only: what follows belongs to the second page.
    unsigned length = 1;
    ZydisDecodedInstruction instruction;
    const ZydisDecoder& decoder = decoders_[mode & 3];
    if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, nullptr, joined, 15, &instruction))) length = instruction.length;
    else length = 15;
    block = bind(joined, length, physical, mode);
    STASIS_ASSERT(block != nullptr);
    block->crosses = true;
    block->bytes = static_cast<u16>(std::max<unsigned>(block->bytes, size + 1));
    block->second_page = second_page;
  }
  insert(block);
  return block;
}

u64 CodeCache::granules_of(const Block& block, u64 page_address) {
  u64 first = block.physical, last = block.physical + block.bytes - 1;
  if (block.crosses) {
    const u64 inside = 0x1000 - (block.physical & 0xfff);
    if (page_address == block.second_page) first = block.second_page, last = block.second_page + (block.bytes - inside) - 1;
    else last = (block.physical | 0xfff);
  }
  u64 granules = 0;
  for (u64 g = (first & 0xfff) >> 6; g <= (last & 0xfff) >> 6; ++g) granules |= 1ull << g;
  return granules;
}

bool CodeCache::overlaps(const Block& block, u64 physical, u64 size) {
  if (!block.crosses) return physical < block.physical + block.bytes && block.physical < physical + size;
  const u64 inside = 0x1000 - (block.physical & 0xfff);
  return (physical < block.physical + inside && block.physical < physical + size) ||
         (physical < block.second_page + (block.bytes - inside) && block.second_page < physical + size);
}

void CodeCache::insert(Block* block) {
  Block*& head = buckets_[bucket_of(block->physical, block->mode)];
  block->next_in_bucket = head;
  head = block;
  bytes_ += sizeof(Block) + block->count * sizeof(Op) + 32;
  const u64 first = align_down(block->physical, kPageSize);
  for (const u64 address : {first, block->crosses ? block->second_page : first}) {
    Page& page = pages_[address];
    if (!page.blocks.empty() && page.blocks.back() == block) continue;
    page.blocks.push_back(block);
    page.granules |= granules_of(*block, address);
    mmu_.mark_code(mmu_.page_of(address));
  }
}

void CodeCache::leave_page(Block* block, u64 address) {
  const auto found = pages_.find(address);
  if (found == pages_.end()) return;
  Page& page = found->second;
  std::erase(page.blocks, block);
  page.granules = 0;
  for (const Block* other : page.blocks) page.granules |= granules_of(*other, address);
  if (!page.blocks.empty()) return;
  mmu_.unmark_code(mmu_.page_of(address));
  pages_.erase(found);
}

void CodeCache::drop(Block* block) {
  Block** link = &buckets_[bucket_of(block->physical, block->mode)];
  while (*link != block) link = &(*link)->next_in_bucket;
  *link = block->next_in_bucket;
  bytes_ -= sizeof(Block) + block->count * sizeof(Op) + 32;
  leave_page(block, align_down(block->physical, kPageSize));
  if (block->crosses) leave_page(block, block->second_page);
  block->dropped = true;
  dropped_.push_back(block);
}

void CodeCache::drop_all() {
  for (Block*& head : buckets_)
    for (; head; head = head->next_in_bucket) {
      head->dropped = true;
      dropped_.push_back(head);
    }
  for (const auto& [address, page] : pages_) mmu_.unmark_code(mmu_.page_of(address));
  pages_.clear();
  bytes_ = 0;
  mmu_.code_dropped(nullptr);
}

void CodeCache::forget_links() {
  for (Block* block : buckets_)
    for (; block; block = block->next_in_bucket) block->links[0] = block->links[1] = {};
  if (cpu_.block) cpu_.block->links[0] = cpu_.block->links[1] = {};
}

void CodeCache::stored(u64 physical, u64 size, const Op* op) {
  const u64 address = align_down(physical, kPageSize);
  const auto found = pages_.find(address);
  if (found == pages_.end()) return;
  const u64 first = (physical & 0xfff) >> 6, last = ((physical & 0xfff) + size - 1) >> 6;
  const u64 touched = (last == 63 ? ~0ull : (1ull << (last + 1)) - 1) & (~0ull << first);
  if (!(found->second.granules & touched)) return;
  std::vector<Block*> hit;
  for (Block* block : found->second.blocks)
    if (overlaps(*block, physical, size)) hit.push_back(block);
  if (hit.empty()) return;
  if (++found->second.hits >= kDataAfter) hit = found->second.blocks;
  for (Block* block : hit) drop(block);
  mmu_.code_dropped(op);
}

void CodeCache::collect() {
  if (dropped_.empty()) return;
  cpu_.open_link = nullptr;  // it may lie in one of them
  for (Block* block : dropped_) ::operator delete(block);
  dropped_.clear();
}

Block* CodeCache::cut(const Block& block, unsigned count) {
  const Block kept = block;
  std::copy_n(block.ops, count + 1, scratch_->ops);
  const unsigned at = block.ops[count].at;
  scratch_->count = static_cast<u16>(count);
  scratch_->bytes = kept.bytes, scratch_->crosses = kept.crosses, scratch_->mode = kept.mode;
  scratch_->physical = kept.physical, scratch_->second_page = kept.second_page;
  scratch_->links[0] = scratch_->links[1] = {};
  set_stub(scratch_->ops[count], stop_here, at, count);
  return scratch_;
}

Block* CodeCache::single(const Block& block, const Op& op) {
  const Op copy = op;
  Block* cut_block = cut(block, 0);
  cut_block->count = 1;
  cut_block->ops[0] = copy;
  cut_block->ops[0].position = 0;
  set_stub(cut_block->ops[1], stop_here, copy.at + copy.length, 1);
  return cut_block;
}

}  // namespace stasis::soft
