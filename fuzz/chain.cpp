// Fuzz: children of a parent: a frame with good digests, joined with a parent that is whole. RAM that was verified is the
// same however it is loaded.
#include "machines.hpp"
#include "repair.hpp"
#include "snapshot/ram_image.hpp"
#include "target.hpp"

using namespace stasis;
using namespace stasis::snapshot;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  static const std::shared_ptr<const OpenSnapshot> parent = fuzz::parent();
  static const std::vector<u8> parent_ram = *testing::ram_of(*parent);
  std::vector<u8> bytes(data, data + size);
  fuzz::repair(bytes);
  auto child = testing::open_memory(std::move(bytes));
  if (!child || !child->parent_link || child->image.ram_size != parent_ram.size()) return 0;
  const auto alone = testing::ram_of(*child);  // refused, or nothing of the parent was needed
  child->parent = parent;
  const auto checked = digest(*child);
  const auto loaded = testing::ram_of(*child);
  std::vector<u8> over = parent_ram;
  const auto loaded_over = load_ram(*child, over.data(), true);
  if (!checked) return 0;
  FUZZ_LAW(loaded && loaded_over && *loaded == over);
  if (alone) FUZZ_LAW(*alone == *loaded);
  for (u64 page = 0; page < child->ram.pages; ++page)
    FUZZ_LAW(is_zero_page(&over[page * kPageSize]) == !(child->nonzero[page / 64] >> (page % 64) & 1));
  return 0;
}
