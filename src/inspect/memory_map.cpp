// Putting pages into classes.
#include "inspect/memory_map.hpp"

#include <zstd.h>

#include <algorithm>
#include <memory>

namespace stasis::inspect {
namespace {

constexpr u64 kPagesPerStep = 1024;
// Linux maps its text there (Documentation/arch/x86/x86_64/mm.rst); modules follow.
constexpr u64 kKernelText = 0xffff'ffff'8000'0000;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};

class Packer {
 public:
  Packer() : context_(ZSTD_createCCtx()), room_(ZSTD_compressBound(kPageSize)) { STASIS_ASSERT(context_); }
  u64 packed_size(const u8* page) {
    const std::size_t size = ZSTD_compressCCtx(context_.get(), room_.data(), room_.size(), page, kPageSize, 1);
    return ZSTD_isError(size) ? kPageSize : std::min<u64>(size, kPageSize);
  }

 private:
  std::unique_ptr<ZSTD_CCtx, FreeContext> context_;
  std::vector<u8> room_;
};

std::vector<bool> code_pages(const PhysicalMemory& memory, const Mappings& mappings) {
  std::vector<bool> out(memory.pages());
  for (const Run& run : mappings.runs) {
    if (run.address < kKernelText || !run.executable || run.user) continue;
    const u64 first = *memory.offset_of(run.physical) / kPageSize;
    std::fill_n(out.begin() + static_cast<std::ptrdiff_t>(first), run.size / kPageSize, true);
  }
  return out;
}

void add(PageMap& map, u8 which) {
  map.classes.push_back(which);
  ++map.pages[which];
}

}  // namespace

Result<PageMap> map_contents(const PhysicalMemory& memory, const Mappings& mappings, const std::vector<u64>& in_parent, snapshot::SaveProgress* progress) {
  PageMap out;
  out.classes.reserve(memory.pages());
  const std::vector<bool> code = code_pages(memory, mappings);
  Packer packer;
  for (u64 page = 0; page < memory.pages(); ++page) {
    if (progress && page % kPagesPerStep == 0 && !progress->step(page * kPageSize, memory.size())) return fail(ErrorCode::cancelled, "map", "was cancelled");
    if (!memory.present(page)) {
      add(out, static_cast<u8>(Content::zero));
      continue;
    }
    const u64 packed = packer.packed_size(memory.page(page));
    out.packed_bytes += packed;
    const Content how = packed <= kPageSize / 4 ? Content::packs_well : packed <= kPageSize / 2 ? Content::packs_half : Content::packs_little;
    const bool left = !in_parent.empty() && in_parent[page / 64] >> (page % 64) & 1;
    add(out, static_cast<u8>(left ? Content::in_parent : code[page] ? Content::kernel_code : how));
  }
  return out;
}

Result<PageMap> map_changes(const RamSide& a, const RamSide& b, snapshot::SaveProgress* progress) {
  STASIS_TRY_SET(const RamDiff diff, diff_ram(a, b, progress));
  PageMap out;
  const u64 pages = std::max(a.memory.pages(), b.memory.pages());
  out.classes.reserve(pages);
  for (u64 page = 0; page < pages; ++page) {
    const bool in_a = a.memory.present(page), in_b = b.memory.present(page);
    const bool differs = page < std::min(a.memory.pages(), b.memory.pages()) ? diff.differing[page / 64] >> (page % 64) & 1 : in_a != in_b;
    const Change change = !in_a && !in_b ? Change::same_zero : !differs ? Change::same : !in_a ? Change::appeared : !in_b ? Change::vanished : Change::changed;
    add(out, static_cast<u8>(change));
  }
  return out;
}

}  // namespace stasis::inspect
