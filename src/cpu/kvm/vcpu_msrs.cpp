// MSRs: those that KVM lists, that this vCPU has, and that cpu/msr_table.hpp gives a field.
#include <fmt/format.h>
#include "cpu/kvm/kvm_abi.hpp"

#include <algorithm>

#include "cpu/kvm/vcpu.hpp"
#include "cpu/msr_table.hpp"

namespace stasis::kvm {
namespace {

constexpr u32 kTsc = 0x10;

class MsrBuffer {
 public:
  explicit MsrBuffer(std::size_t most) : bytes_(sizeof(kvm_msrs) + most * sizeof(kvm_msr_entry)) {}
  void add(u32 index, u64 value = 0) {
    kvm_msr_entry& entry = entries()[head().nmsrs++];
    entry.index = index;
    entry.data = value;
  }
  kvm_msrs& head() { return *reinterpret_cast<kvm_msrs*>(bytes_.data()); }
  kvm_msr_entry* entries() { return reinterpret_cast<kvm_msr_entry*>(bytes_.data() + sizeof(kvm_msrs)); }

 private:
  std::vector<u8> bytes_;
};

// Not in KVM's list, though they are the guest's: MTRRs, the machine-check bank, the last branches.
std::vector<u32> unlisted() {
  std::vector<u32> all{0x17a, 0x1d9, 0x250, 0x258, 0x259, 0x277, 0x2ff, 0x400, 0x401, 0x402, 0x403};
  for (u32 i = 0x200; i < 0x210; ++i) all.push_back(i);
  for (u32 i = 0x268; i < 0x270; ++i) all.push_back(i);
  return all;
}

// KVM has one of these for the whole machine: the first vCPU's counts.
bool is_wall_clock(u32 index) { return std::ranges::find(kWallClockMsrs, index) != kWallClockMsrs.end(); }

}  // namespace

Result<u64> Vcpu::read_msr(u32 index) const {
  MsrBuffer buffer(1);
  buffer.add(index);
  STASIS_TRY_SET(const long count, handle_.call(fmt::format("KVM_GET_MSRS of vCPU {}", id_), KVM_GET_MSRS, &buffer.head()));
  if (count != 1) return fail(ErrorCode::unsupported, "kvm", fmt::format("vCPU {} has no MSR {:#x} ({})", id_, index, msr_name(index)));
  return buffer.entries()[0].data;
}

Result<> Vcpu::write_msr(u32 index, u64 value) {
  MsrBuffer buffer(1);
  buffer.add(index, value);
  STASIS_TRY_SET(const long count, handle_.call(fmt::format("KVM_SET_MSRS of vCPU {}", id_), KVM_SET_MSRS, &buffer.head()));
  if (count != 1)
    return fail(ErrorCode::unsupported, "kvm", fmt::format("MSR {:#x} ({}) of vCPU {} cannot be {:#x} on this host", index, msr_name(index), id_, value),
                "resume it on a host that has it");
  return {};
}

// KVM writes the wall clock into guest RAM when the MSR is set. What is there is the guest's, and as old as the guest's
// own setting.
Result<> Vcpu::write_wall_clock_msr(u32 index, u64 address) {
  std::array<u8, 12> kept{};  // version, seconds, nanoseconds
  const bool in_ram = vm_->memory().read(address, kept);
  STASIS_TRY(write_msr(index, address));
  if (in_ram) vm_->memory().write(address, kept);
  return {};
}

// The guest set the MSR: it is KVM's to keep, but not to answer.
Result<> Vcpu::set_wall_clock(u32 index, u64 address, const PvclockWallClock& now) {
  STASIS_TRY(write_wall_clock_msr(index, address));
  vm_->memory().write(address & ~u64{3}, {reinterpret_cast<const u8*>(&now), sizeof now});  // outside of RAM it is lost, as KVM's is
  return {};
}

Result<> Vcpu::find_msrs() {
  std::vector<u32> candidates = unlisted();
  candidates.insert(candidates.end(), vm_->system().msrs.begin(), vm_->system().msrs.end());
  std::ranges::sort(candidates);
  candidates.erase(std::ranges::unique(candidates).begin(), candidates.end());
  for (const u32 index : candidates) {
    const MsrEntry* entry = find_msr(index);
    if (!entry || (entry->home != MsrHome::vcpu && entry->home != MsrHome::other) || index == kTsc) continue;
    MsrBuffer buffer(1);
    buffer.add(index);
    if (handle_.ask(KVM_GET_MSRS, &buffer.head()) == 1) msrs_.push_back(index);
  }
  return {};
}

Result<> Vcpu::read_msrs(VcpuState& out) const {
  MsrBuffer buffer(msrs_.size());
  for (const u32 index : msrs_) buffer.add(index);
  STASIS_TRY_SET(const long count, handle_.call(fmt::format("KVM_GET_MSRS of vCPU {}", id_), KVM_GET_MSRS, &buffer.head()));
  if (static_cast<std::size_t>(count) != msrs_.size())
    return fail(ErrorCode::host, "kvm", fmt::format("MSR {:#x} ({}) of vCPU {} cannot be read any more", msrs_[static_cast<std::size_t>(count)],
                                                    msr_name(msrs_[static_cast<std::size_t>(count)]), id_));
  out.other_msrs.clear();
  for (std::size_t i = 0; i < msrs_.size(); ++i) msr_set(out, msrs_[i], buffer.entries()[i].data);
  return {};
}

// What is as KVM has it already is not written: some MSRs can be read, and written only with the value they have.
Result<> Vcpu::write_msrs(const VcpuState& in) {
  VcpuState now;
  STASIS_TRY(read_msrs(now));
  for (const u32 index : msrs_) {
    u64 wanted = 0, have = 0;
    if (!msr_get(in, index, wanted) || !msr_get(now, index, have) || wanted == have || (is_wall_clock(index) && id_ != 0)) continue;
    STASIS_TRY(is_wall_clock(index) ? write_wall_clock_msr(index, wanted) : write_msr(index, wanted));
  }
  for (const MsrState& msr : in.other_msrs)
    if (msr.value != 0 && !std::ranges::binary_search(msrs_, msr.index))
      return fail(ErrorCode::unsupported, "kvm", fmt::format("the guest uses MSR {:#x} ({}), which this host does not have", msr.index, msr_name(msr.index)),
                  "resume it on a host that has it");
  return {};
}

}  // namespace stasis::kvm
