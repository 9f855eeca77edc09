// For tests: a KVM of our own behind the seam. It keeps what it is given, runs a scripted guest, and fails where it is told to.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "cpu/kvm/kernel.hpp"
#include "cpu/kvm/kvm_abi.hpp"

namespace stasis::kvm {

class FakeKernel final : public Kernel {
 public:
  struct Vcpu {
    kvm_regs regs{};
    kvm_sregs2 sregs{};
    std::array<u8, 4096> xsave{};
    kvm_xcrs xcrs{};
    kvm_debugregs debug{};
    kvm_vcpu_events events{};
    kvm_mp_state activity{};
    kvm_lapic_state lapic{};
    std::map<u32, u64> msrs;
    u64 tsc_offset = 0, tsc_ratio = u64{1} << 32;
    bool turns_back = false;     // a signal mask is set: the next KVM_RUN finds the signal that it lets through
    bool timer_expired = false;  // its interrupt is not in IRR before the next KVM_RUN
    alignas(16) std::array<u8, 4096> page{};
    kvm_run& run() { return *reinterpret_cast<kvm_run*>(page.data()); }
  };
  // What KVM_RUN does; a result as ioctl()'s. By default the guest spins until it is asked out.
  using Guest = std::function<long(u32 id, Vcpu& vcpu)>;

  Guest guest = [](u32, Vcpu& vcpu) { return spin(vcpu); };
  std::set<unsigned long> missing;      // capabilities
  std::map<u32, u64> msr_values{{0x1b, 0}, {0x48, 0}, {0x174, 0}, {0x175, 0}, {0x176, 0}, {0x277, 0}, {0xc0000081, 0}, {0xc0000082, 0}};
  std::vector<kvm_cpuid_entry2> cpuid;
  std::function<void()> when_reading;   // called when the engine begins to read a stopped vCPU
  int open_error = 0;
  long tsc_khz = 2'000'000;
  bool tsc_control = false;             // KVM_CAP_TSC_CONTROL: the guest's TSC may have another rate, by a fraction of 32 bits
  std::atomic<u64> ticks{1'000'000};    // the host's TSC
  std::atomic<u64> calls{0};
  std::atomic<u64> fail_call{0};        // the call of that number, from 1, fails with EIO; 0: none
  std::string module_name = "kvm_amd";
  std::map<u32, Vcpu> vcpus;
  std::vector<kvm_msi> messages;
  struct Slot {
    kvm_userspace_memory_region region{};
    std::vector<u64> log;  // as KVM has it: there while KVM_MEM_LOG_DIRTY_PAGES is set
  };
  std::map<u32, Slot> slots;
  std::function<bool(unsigned long request, const void* argument)> refuses;  // such a call of the machine fails with EIO

  // A byte of RAM that the guest writes.
  void guest_writes(u64 address, u8 value) {
    for (auto& [number, slot] : slots) {
      const u64 at = address - slot.region.guest_phys_addr;
      if (at >= slot.region.memory_size) continue;
      reinterpret_cast<u8*>(slot.region.userspace_addr)[at] = value;
      if (!slot.log.empty()) slot.log[at / kPageSize / 64] |= u64{1} << at / kPageSize % 64;
    }
  }

  static long spin(Vcpu& vcpu) {
    while (!__atomic_load_n(&vcpu.run().immediate_exit, __ATOMIC_SEQ_CST)) std::this_thread::yield();
    return -EINTR;
  }

  int open() override { return open_error ? -open_error : kDevice; }
  long ioctl_value(int fd, unsigned long request, u64 argument) override {
    if (request == KVM_CHECK_EXTENSION) return missing.contains(argument) ? 0 : argument == KVM_CAP_XSAVE2 ? 4096 : argument == KVM_CAP_TSC_CONTROL ? tsc_control : 1024;
    if (fails()) return -EIO;
    switch (request) {
      case KVM_GET_API_VERSION: return KVM_API_VERSION;
      case KVM_GET_VCPU_MMAP_SIZE: return 4096;
      case KVM_CREATE_VM: return kVm;
      case KVM_GET_TSC_KHZ: return tsc_khz;
      case KVM_SET_TSS_ADDR: return 0;
      case KVM_SET_TSC_KHZ:
        vcpus.at(static_cast<u32>(fd - kFirstVcpu)).tsc_ratio = (argument << 32) / static_cast<u64>(tsc_khz);
        return 0;
      case KVM_CREATE_VCPU: {
        const std::lock_guard lock(mutex_);
        vcpus[static_cast<u32>(argument)].msrs = msr_values;
        return kFirstVcpu + static_cast<long>(argument);
      }
      default: return -EINVAL;
    }
  }
  long ioctl(int fd, unsigned long request, void* argument) override {
    if (fd >= kFirstVcpu && request == KVM_RUN) {
      Vcpu& vcpu = vcpus.at(static_cast<u32>(fd - kFirstVcpu));
      if (fails()) return -EIO;
      if (vcpu.run().immediate_exit) {  // as KVM does on every way back
        vcpu.run().if_flag = vcpu.regs.rflags >> 9 & 1;
        vcpu.run().ready_for_interrupt_injection = vcpu.run().if_flag && !vcpu.events.interrupt.injected;
        return -EINTR;
      }
      if (std::exchange(vcpu.timer_expired, false)) request_timer_interrupt(vcpu);
      return vcpu.turns_back ? -EINTR : guest(static_cast<u32>(fd - kFirstVcpu), vcpu);
    }
    if (fails()) return -EIO;
    if (request == KVM_GET_DEVICE_ATTR && when_reading) when_reading();
    if (request == KVM_SET_MSRS) write_wall_clock(*static_cast<kvm_msrs*>(argument));
    if (fd >= kFirstVcpu) return vcpu_call(vcpus.at(static_cast<u32>(fd - kFirstVcpu)), request, argument);
    if (refuses && refuses(request, argument)) return -EIO;
    switch (request) {
      case KVM_SET_USER_MEMORY_REGION: return set_slot(*static_cast<kvm_userspace_memory_region*>(argument));
      case KVM_GET_DIRTY_LOG: return give_log(*static_cast<kvm_dirty_log*>(argument));
      case KVM_GET_SUPPORTED_CPUID: {
        auto* list = static_cast<kvm_cpuid2*>(argument);
        list->nent = static_cast<u32>(cpuid.size());
        if (!cpuid.empty()) std::memcpy(static_cast<void*>(list + 1), cpuid.data(), cpuid.size() * sizeof cpuid[0]);
        return 0;
      }
      case KVM_GET_MSR_INDEX_LIST: {
        auto* list = static_cast<kvm_msr_list*>(argument);
        list->nmsrs = 0;
        for (const auto& [index, value] : msr_values) reinterpret_cast<u32*>(list + 1)[list->nmsrs++] = index;
        return 0;
      }
      case KVM_SIGNAL_MSI:
        messages.push_back(*static_cast<kvm_msi*>(argument));
        return vcpus.contains(messages.back().address_lo >> 12 & 0xff) ? 1 : -EPERM;  // KVM's "nobody took it" is -1
      case KVM_GET_CLOCK: *static_cast<kvm_clock_data*>(argument) = {}; return 0;
      case KVM_GET_MSRS: return 0;
      default: return 0;
    }
  }
  void* map(int fd, std::size_t) override { return vcpus.at(static_cast<u32>(fd - kFirstVcpu)).page.data(); }
  void unmap(void*, std::size_t) override {}
  void close(int) override {}
  u64 time_stamp() override { return ticks += 1000; }
  // As RDTSC in the guest.
  u64 guest_tsc(const Vcpu& v) { return static_cast<u64>(static_cast<unsigned __int128>(ticks.load()) * v.tsc_ratio >> 32) + v.tsc_offset; }
  std::string module() override { return module_name; }

 private:
  static constexpr int kDevice = 1000, kVm = 1001, kFirstVcpu = 2000;

  bool fails() { return ++calls == fail_call; }

  template <class T>
  static long give(void* to, const T& from) { return std::memcpy(to, &from, sizeof from), 0; }
  template <class T>
  static long take(T& to, const void* from) { return std::memcpy(&to, from, sizeof to), 0; }

  long set_slot(const kvm_userspace_memory_region& region) {
    Slot& slot = slots[region.slot];
    const bool on = region.flags & KVM_MEM_LOG_DIRTY_PAGES;
    if (!on) slot.log.clear();
    else if (slot.log.empty()) slot.log.resize((region.memory_size / kPageSize + 63) / 64);
    slot.region = region;
    return 0;
  }
  long give_log(const kvm_dirty_log& request) {
    Slot& slot = slots[request.slot];
    if (slot.log.empty()) return -ENOENT;
    std::ranges::copy(slot.log, static_cast<u64*>(request.dirty_bitmap));
    std::ranges::fill(slot.log, 0);
    return 0;
  }

  // Setting its MSR writes the wall clock into RAM.
  void write_wall_clock(const kvm_msrs& list) {
    constexpr u32 kWallClock = 0x4b56'4d00;
    const auto* const entries = reinterpret_cast<const kvm_msr_entry*>(&list + 1);
    for (u32 i = 0; i < list.nmsrs; ++i)
      for (u64 at = 0; at < 12 && entries[i].index == kWallClock && entries[i].data != 0; ++at) guest_writes(entries[i].data + at, 0xee);
  }
  static void request_timer_interrupt(Vcpu& v) {
    constexpr unsigned kIrr = 0x200, kLvtTimer = 0x320;
    const u8 vector = static_cast<u8>(v.lapic.regs[kLvtTimer]);
    v.lapic.regs[kIrr + 16 * (vector / 32) + vector % 32 / 8] |= static_cast<char>(1 << vector % 8);
  }
  long vcpu_call(Vcpu& v, unsigned long request, void* a) {
    switch (request) {
      case KVM_GET_REGS: return give(a, v.regs);
      case KVM_SET_REGS: return take(v.regs, a);
      case KVM_GET_SREGS2: return give(a, v.sregs);
      case KVM_SET_SREGS2: return take(v.sregs, a);
      case KVM_GET_XSAVE: return give(a, v.xsave);
      case KVM_SET_XSAVE: return take(v.xsave, a);
      case KVM_GET_XCRS: return give(a, v.xcrs);
      case KVM_SET_XCRS: return take(v.xcrs, a);
      case KVM_GET_DEBUGREGS: return give(a, v.debug);
      case KVM_SET_DEBUGREGS: return take(v.debug, a);
      case KVM_GET_VCPU_EVENTS: return give(a, v.events);
      case KVM_SET_VCPU_EVENTS: return take(v.events, a);
      case KVM_GET_MP_STATE: return give(a, v.activity);
      case KVM_SET_MP_STATE: return take(v.activity, a);
      case KVM_SET_SIGNAL_MASK: return v.turns_back = a != nullptr, 0;
      case KVM_GET_LAPIC: return give(a, v.lapic);
      case KVM_SET_LAPIC: v.timer_expired = false; return take(v.lapic, a);
      case KVM_GET_DEVICE_ATTR: return give(reinterpret_cast<void*>(static_cast<kvm_device_attr*>(a)->addr), v.tsc_offset);
      case KVM_SET_DEVICE_ATTR: return take(v.tsc_offset, reinterpret_cast<void*>(static_cast<kvm_device_attr*>(a)->addr));
      case KVM_GET_MSRS: return msrs(v, a, false);
      case KVM_SET_MSRS: return msrs(v, a, true);
      default: return 0;
    }
  }
  long msrs(Vcpu& v, void* a, bool set) {
    auto* const head = static_cast<kvm_msrs*>(a);
    auto* const entries = reinterpret_cast<kvm_msr_entry*>(head + 1);
    constexpr u32 kAccepted[] = {0x8b, 0xce, 0x10a, 0x6e0};  // beside those that are listed
    for (u32 i = 0; i < head->nmsrs; ++i) {
      if (entries[i].index == 0x10 && !set) {
        ticks += 300, entries[i].data = guest_tsc(v), ticks += 500;
        continue;
      }
      const bool known = v.msrs.contains(entries[i].index) || std::ranges::find(kAccepted, entries[i].index) != std::end(kAccepted);
      if (!known) return i;
      if (set) v.msrs[entries[i].index] = entries[i].data;
      else entries[i].data = v.msrs[entries[i].index];
    }
    return head->nmsrs;
  }

  std::mutex mutex_;
};

}  // namespace stasis::kvm
