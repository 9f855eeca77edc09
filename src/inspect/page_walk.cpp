// Walking page tables that may say anything.
#include "inspect/page_walk.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

namespace stasis::inspect {
namespace {

constexpr u64 kPresent = 1, kWritable = 2, kUser = 4, kLarge = 0x80, kNoExecute = 1ull << 63;
constexpr u64 kAddress = 0x000f'ffff'ffff'f000;
constexpr u64 kCr0Paging = 1ull << 31, kCr4FiveLevels = 1ull << 12, kCr4Pae = 1ull << 5, kEferLongMode = 1ull << 10;
constexpr u64 kEntries = 512;

constexpr const char* kLevelNames[] = {"", "PT", "PD", "PDPT", "PML4", "PML5"};

unsigned shift_of(unsigned level) { return 12 + 9 * (level - 1); }

u64 canonical(u64 address, unsigned levels) {
  const unsigned unused = 64 - shift_of(levels + 1);
  return static_cast<u64>(static_cast<i64>(address << unused) >> unused);
}

bool upper_half(u64 address) { return address >> 63; }

unsigned kernel_entries(const PhysicalMemory& memory, u64 root) {
  unsigned count = 0;
  for (u64 i = kEntries / 2; i < kEntries; ++i) count += memory.read_u64(root + i * 8).value_or(0) & kPresent;
  return count;
}

// Linux with page table isolation runs programs on a second top table, one page after the kernel's own, whose upper
// half has little but the entry code. The kernel is then read through the first.
u64 kernel_root_of(const Vcpu& vcpu, u64 root, const PhysicalMemory& memory) {
  const u64 sibling = root & ~kPageSize;
  if (vcpu.cpl == 0 || sibling == root) return root;
  return kernel_entries(memory, sibling) > kernel_entries(memory, root) ? sibling : root;
}

// All mappings of one space, merged as they are found.
class Enumeration {
 public:
  Enumeration(const PhysicalMemory& memory, const AddressSpace& space, const WalkLimits& limits)
      : memory_(memory), space_(space), limits_(limits), ranges_(memory.ranges()) {}

  Mappings run() {
    if (space_.levels == 0) {
      for (const auto& range : ranges_) out_.runs.push_back({range.address, range.address, range.size, true, true, true});
      return std::move(out_);
    }
    visit(space_.user_root, space_.levels, 0, 0, kEntries / 2, kWritable | kUser);
    visit(space_.kernel_root, space_.levels, 0, kEntries / 2, kEntries, kWritable | kUser);
    return std::move(out_);
  }

 private:
  // `rights`: writable, user and no-execute as the levels above leave them.
  void visit(u64 table, unsigned level, u64 address, u64 first, u64 last, u64 rights) {
    if (tables_ >= limits_.tables || out_.runs.size() >= limits_.runs || seen_[table] >= limits_.visits) {
      ++out_.left_out;
      return;
    }
    ++tables_;
    ++seen_[table];
    for (u64 i = first; i < last; ++i) {
      const auto entry = memory_.read_u64(table + i * 8);
      if (!entry) return;  // not in RAM, nor is any other entry
      if (!(*entry & kPresent)) continue;
      u64 here = address + (i << shift_of(level));
      if (level == space_.levels) here = canonical(here, space_.levels);
      const u64 inherited = (rights & *entry & (kWritable | kUser)) | ((rights | *entry) & kNoExecute);
      const bool large = level > 1 && *entry & kLarge;
      if (large && level > 3) continue;  // reserved
      if (level == 1 || large) leaf(here, *entry & kAddress, 1ull << shift_of(level), inherited);
      else visit(*entry & kAddress, level - 1, here, 0, kEntries, inherited);
    }
  }

  void leaf(u64 address, u64 physical, u64 size, u64 rights) {
    physical = align_down(physical, size);
    for (const auto& range : ranges_) {
      const u64 from = std::max(physical, range.address), to = std::min(physical + size, range.address + range.size);
      if (from < to) add({address + (from - physical), from, to - from, !!(rights & kWritable), !!(rights & kUser), !(rights & kNoExecute)});
    }
  }

  void add(const Run& run) {
    if (!out_.runs.empty()) {
      Run& last = out_.runs.back();
      if (last.address + last.size == run.address && last.physical + last.size == run.physical && last.writable == run.writable &&
          last.user == run.user && last.executable == run.executable) {
        last.size += run.size;
        return;
      }
    }
    if (out_.runs.size() >= limits_.runs) ++out_.left_out;
    else out_.runs.push_back(run);
  }

  const PhysicalMemory& memory_;
  const AddressSpace& space_;
  const WalkLimits& limits_;
  std::vector<PhysicalMemory::Range> ranges_;
  std::unordered_map<u64, u8> seen_;
  u64 tables_ = 0;
  Mappings out_;
};

}  // namespace

Result<AddressSpace> address_space_of(const Vcpu& vcpu, const PhysicalMemory& memory, const std::string& object) {
  if (!(vcpu.cr0 & kCr0Paging)) return AddressSpace{};
  if (!(vcpu.efer & kEferLongMode))
    return fail(ErrorCode::unsupported, object,
                fmt::format("cpu/{} uses {} paging (efer is {:#x}, cr4 is {:#x}), of which the page tables are not read; 4-level and 5-level ones are",
                            vcpu.number, vcpu.cr4 & kCr4Pae ? "PAE" : "32-bit", vcpu.efer, vcpu.cr4),
                "use physical addresses, or another vCPU");
  const u64 root = vcpu.cr3 & kAddress;
  return AddressSpace{vcpu.cr4 & kCr4FiveLevels ? 5u : 4u, root, kernel_root_of(vcpu, root, memory)};
}

Walk walk(const PhysicalMemory& memory, const AddressSpace& space, u64 address) {
  Walk out;
  if (space.levels == 0) {
    out.physical = address;
    out.page_bytes = kPageSize;
    return out;
  }
  if (canonical(address, space.levels) != address) return out.end = Walk::End::not_canonical, out;
  u64 table = upper_half(address) ? space.kernel_root : space.user_root;
  for (unsigned level = space.levels;; --level) {
    out.level = level;
    out.entry_address = table + (address >> shift_of(level) & (kEntries - 1)) * 8;
    const auto entry = memory.read_u64(out.entry_address);
    if (!entry) return out.end = Walk::End::table_outside_ram, out;
    out.entry = *entry;
    if (!(*entry & kPresent)) return out.end = Walk::End::not_present, out;
    const bool large = level > 1 && *entry & kLarge;
    if (large && level > 3) return out.end = Walk::End::reserved_bit, out;
    out.writable &= !!(*entry & kWritable);
    out.user &= !!(*entry & kUser);
    out.executable &= !(*entry & kNoExecute);
    if (level == 1 || large) {
      out.page_bytes = 1ull << shift_of(level);
      out.physical = align_down(*entry & kAddress, out.page_bytes) | (address & (out.page_bytes - 1));
      return out;
    }
    table = *entry & kAddress;
  }
}

std::string reason(const Walk& walk) {
  const auto entry = [&](const char* what) {
    const u64 index = walk.entry_address % kPageSize / 8;
    return fmt::format("{} entry {:#x} at physical {:#x} is {:#x}: {}", kLevelNames[walk.level], index, walk.entry_address, walk.entry, what);
  };
  switch (walk.end) {
    case Walk::End::mapped: return fmt::format("mapped to physical {:#x}, which is not RAM", walk.physical);
    case Walk::End::not_canonical: return "not a canonical address";
    case Walk::End::not_present: return entry("not present");
    case Walk::End::reserved_bit: return entry("the page size bit is reserved at this level");
    case Walk::End::table_outside_ram:
      return fmt::format("the {} at physical {:#x} is not in RAM", kLevelNames[walk.level], align_down(walk.entry_address, kPageSize));
  }
  return {};
}

Result<> read_virtual(const PhysicalMemory& memory, const AddressSpace& space, u64 address, MutableBytes out, const std::string& object) {
  if (!out.empty() && address + (out.size() - 1) < address)
    return fail(ErrorCode::usage, object, fmt::format("{} bytes at {:#x} go beyond the last address", out.size(), address), "ask for fewer");
  while (!out.empty()) {
    const Walk at = walk(memory, space, address);
    const u64 size = std::min<u64>(out.size(), kPageSize - address % kPageSize);
    if (at.end != Walk::End::mapped || !memory.read(at.physical, out.first(size)))
      return fail(ErrorCode::not_found, object, fmt::format("virtual address {:#x} is not mapped: {}", address, reason(at)),
                  "try another address, or another --vcpu if its address space differs");
    out = out.subspan(size);
    address += size;
  }
  return {};
}

Mappings mappings_of(const PhysicalMemory& memory, const AddressSpace& space, const WalkLimits& limits) {
  return Enumeration(memory, space, limits).run();
}

}  // namespace stasis::inspect
