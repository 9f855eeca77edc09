// What this machine's /dev/kvm offers, as text, sorted by what a monitor asks for: capabilities, CPUID, MSRs, clocks.
//
// A value is printed as the kernel gives it. Exit status 0 when /dev/kvm answered, 1 when it could not be opened.
#include <fcntl.h>
#include <linux/stddef.h>
// In C++ the headers' flexible arrays are an empty struct, of size 1: sizes, and so request numbers, would be wrong.
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[]
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

namespace {

struct Named {
  const char* name;
  long number;
};

#define CAP(x) Named{#x, KVM_CAP_##x}
constexpr Named kCapabilities[] = {
    CAP(USER_MEMORY), CAP(NR_MEMSLOTS), CAP(MULTI_ADDRESS_SPACE), CAP(READONLY_MEM), CAP(SYNC_MMU), CAP(INTERNAL_ERROR_DATA),
    CAP(DESTROY_MEMORY_REGION_WORKS), CAP(JOIN_MEMORY_REGIONS_WORKS), CAP(COALESCED_MMIO), CAP(COALESCED_PIO),
    CAP(MANUAL_DIRTY_LOG_PROTECT2), CAP(DIRTY_LOG_RING), Named{"DIRTY_LOG_RING_ACQ_REL", 223},
    Named{"DIRTY_LOG_RING_WITH_BITMAP", 225},
    CAP(NR_VCPUS), CAP(MAX_VCPUS), CAP(MAX_VCPU_ID), CAP(IMMEDIATE_EXIT), CAP(MP_STATE), CAP(SYNC_REGS),
    CAP(IRQCHIP), CAP(SPLIT_IRQCHIP), CAP(IRQ_ROUTING), CAP(IRQFD), CAP(IRQFD_RESAMPLE), CAP(IOEVENTFD), CAP(IOEVENTFD_NO_LENGTH),
    CAP(IOEVENTFD_ANY_LENGTH), CAP(SIGNAL_MSI), CAP(X2APIC_API), CAP(PIT2), CAP(PIT_STATE2), CAP(REINJECT_CONTROL),
    CAP(VAPIC), CAP(TSC_DEADLINE_TIMER), CAP(SET_IDENTITY_MAP_ADDR), CAP(SET_TSS_ADDR),
    CAP(TSC_CONTROL), CAP(GET_TSC_KHZ), Named{"VM_TSC_CONTROL", 214}, CAP(ADJUST_CLOCK), CAP(KVMCLOCK_CTRL), CAP(CLOCKSOURCE),
    CAP(VCPU_ATTRIBUTES), CAP(DEVICE_CTRL), CAP(VM_ATTRIBUTES),
    CAP(VCPU_EVENTS), CAP(EXCEPTION_PAYLOAD), Named{"X86_TRIPLE_FAULT_EVENT", 218}, CAP(INTR_SHADOW), CAP(USER_NMI), CAP(X86_SMM),
    CAP(MCE), CAP(DEBUGREGS), CAP(X86_ROBUST_SINGLESTEP), CAP(SET_GUEST_DEBUG), CAP(SET_GUEST_DEBUG2), CAP(NESTED_STATE),
    CAP(XSAVE), CAP(XSAVE2), CAP(XCRS), CAP(SREGS2), CAP(EXT_CPUID), CAP(GET_MSR_FEATURES), CAP(X86_USER_SPACE_MSR),
    CAP(X86_MSR_FILTER), CAP(ENFORCE_PV_FEATURE_CPUID), CAP(PMU_CAPABILITY), CAP(X86_DISABLE_EXITS), CAP(X86_BUS_LOCK_EXIT),
    Named{"X86_NOTIFY_VMEXIT", 219}, CAP(ASYNC_PF), CAP(ASYNC_PF_INT), CAP(STEAL_TIME), CAP(PV_MMU), CAP(EXIT_HYPERCALL),
    CAP(SET_BOOT_CPU_ID), CAP(HALT_POLL), CAP(HYPERV), CAP(HYPERV_CPUID), CAP(XEN_HVM), CAP(SGX_ATTRIBUTE), CAP(BINARY_STATS_FD),
    CAP(EXIT_ON_EMULATION_FAILURE), CAP(LAST_CPU), CAP(PTP_KVM), CAP(VM_COPY_ENC_CONTEXT_FROM),
    Named{"DISABLE_QUIRKS", KVM_CAP_DISABLE_QUIRKS}, Named{"DISABLE_QUIRKS2", 213},
};

std::string error_text() { return std::string("error: ") + std::strerror(errno); }

void print_host(int kvm) {
  std::puts("# host");
  for (const char* module : {"kvm", "kvm_intel", "kvm_amd", "kvm_pvm"})
    if (access((std::string("/sys/module/") + module).c_str(), F_OK) == 0) std::printf("module %s\n", module);
  std::ifstream source("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  std::string name;
  if (source >> name) std::printf("host clocksource %s\n", name.c_str());
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line) && !line.empty();)
    if (line.starts_with("model name") || line.starts_with("flags")) std::puts(line.c_str());
  std::printf("api version %d\nvcpu mmap size %d\n", ioctl(kvm, KVM_GET_API_VERSION, 0), ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
}

void print_capabilities(int kvm, int vm) {
  std::puts("\n# capabilities: name number value (on /dev/kvm) value (on the VM)");
  for (const auto& cap : kCapabilities) {
    const int system = ioctl(kvm, KVM_CHECK_EXTENSION, cap.number), machine = ioctl(vm, KVM_CHECK_EXTENSION, cap.number);
    std::printf("%-28s %4ld %6d (0x%x) %6d (0x%x)\n", cap.name, cap.number, system, system, machine, machine);
  }
}

std::unique_ptr<kvm_cpuid2, decltype(&std::free)> print_cpuid(int fd, unsigned long request, const char* title) {
  std::printf("\n# %s: leaf.subleaf flags eax ebx ecx edx\n", title);
  constexpr unsigned kRoom = 256;
  std::unique_ptr<kvm_cpuid2, decltype(&std::free)> list(
      static_cast<kvm_cpuid2*>(std::calloc(1, sizeof(kvm_cpuid2) + kRoom * sizeof(kvm_cpuid_entry2))), &std::free);
  list->nent = kRoom;
  if (ioctl(fd, request, list.get()) < 0) {
    std::puts(error_text().c_str());
    list->nent = 0;
    return list;
  }
  for (unsigned i = 0; i < list->nent; ++i) {
    const auto& e = list->entries[i];
    std::printf("%08x.%02x %x  %08x %08x %08x %08x\n", e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx);
  }
  return list;
}

std::vector<uint32_t> indices(int kvm, unsigned long request) {
  kvm_msr_list none{};
  (void)ioctl(kvm, request, &none);  // E2BIG, and the count
  std::unique_ptr<kvm_msr_list, decltype(&std::free)> list(
      static_cast<kvm_msr_list*>(std::calloc(1, sizeof none + none.nmsrs * sizeof(uint32_t))), &std::free);
  list->nmsrs = none.nmsrs;
  if (ioctl(kvm, request, list.get()) < 0) {
    std::puts(error_text().c_str());
    return {};
  }
  return {list->indices, list->indices + list->nmsrs};
}

/// One at a time: KVM_GET_MSRS stops at the first that it does not know.
void print_msrs(int fd, const std::vector<uint32_t>& list, const char* title, bool writable) {
  std::printf("\n# %s (%zu)\n", title, list.size());
  for (const uint32_t index : list) {
    alignas(kvm_msrs) unsigned char room[sizeof(kvm_msrs) + sizeof(kvm_msr_entry)]{};
    auto* one = reinterpret_cast<kvm_msrs*>(room);
    one->nmsrs = 1;
    one->entries[0].index = index;
    if (ioctl(fd, KVM_GET_MSRS, one) != 1) {
      std::printf("%08x  unreadable\n", index);
      continue;
    }
    std::printf("%08x  %016" PRIx64, index, static_cast<uint64_t>(one->entries[0].data));
    if (writable && ioctl(fd, KVM_SET_MSRS, one) != 1) std::printf("  refuses its own value");
    std::puts("");
  }
}

void print_clock(int vm, int vcpu) {
  std::puts("\n# clocks");
  kvm_clock_data clock{};
  if (ioctl(vm, KVM_GET_CLOCK, &clock) < 0) {
    std::printf("KVM_GET_CLOCK %s\n", error_text().c_str());
  } else {
    std::printf("KVM_GET_CLOCK flags 0x%x%s%s%s clock %" PRIu64 " realtime %" PRIu64 " host_tsc %" PRIu64 "\n", clock.flags,
                clock.flags & KVM_CLOCK_TSC_STABLE ? " TSC_STABLE" : "", clock.flags & KVM_CLOCK_REALTIME ? " REALTIME" : "",
                clock.flags & KVM_CLOCK_HOST_TSC ? " HOST_TSC" : "", static_cast<uint64_t>(clock.clock),
                static_cast<uint64_t>(clock.realtime), static_cast<uint64_t>(clock.host_tsc));
  }
  const int khz = ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
  std::printf("KVM_GET_TSC_KHZ %d\n", khz);
  for (const int change : {0, khz / 10000, -khz / 10000, khz / 10, -khz / 10}) {
    const int set = ioctl(vcpu, KVM_SET_TSC_KHZ, khz + change);
    std::printf("KVM_SET_TSC_KHZ %d: %s, then KVM_GET_TSC_KHZ %d\n", khz + change, set < 0 ? error_text().c_str() : "ok",
                ioctl(vcpu, KVM_GET_TSC_KHZ, 0));
  }
  (void)ioctl(vcpu, KVM_SET_TSC_KHZ, khz);
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  std::printf("KVM_HAS_DEVICE_ATTR TSC_OFFSET: %s\n", ioctl(vcpu, KVM_HAS_DEVICE_ATTR, &attribute) < 0 ? error_text().c_str() : "yes");
  uint64_t offset = 0;
  attribute.addr = reinterpret_cast<uint64_t>(&offset);
  if (ioctl(vcpu, KVM_GET_DEVICE_ATTR, &attribute) == 0) std::printf("TSC_OFFSET %016" PRIx64 "\n", offset);
}

/// KVM decides on its master clock when a vCPU runs: one that only writes to a port, again and again, does.
void run_a_little(int kvm, int vm, int vcpu) {
  std::puts("\n# a real-mode guest: out %al,$0x80; jmp");
  constexpr unsigned char kCode[] = {0xE6, 0x80, 0xEB, 0xFC};
  auto* ram = static_cast<unsigned char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  std::memcpy(ram, kCode, sizeof kCode);
  kvm_userspace_memory_region region{};
  region.guest_phys_addr = 0x1000;
  region.memory_size = 4096;
  region.userspace_addr = reinterpret_cast<uint64_t>(ram);
  if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0) return (void)std::puts(error_text().c_str());
  auto* run = static_cast<kvm_run*>(
      mmap(nullptr, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0));
  kvm_sregs system{};
  kvm_regs registers{};
  (void)ioctl(vcpu, KVM_GET_SREGS, &system);
  system.cs.base = 0;
  system.cs.selector = 0;
  registers.rip = 0x1000;
  registers.rflags = 2;
  (void)ioctl(vcpu, KVM_SET_SREGS, &system);
  (void)ioctl(vcpu, KVM_SET_REGS, &registers);
  constexpr int kExits = 2000;
  timespec began{}, ended{};
  clock_gettime(CLOCK_MONOTONIC, &began);
  int exits = 0;
  for (; exits < kExits; ++exits) {
    if (ioctl(vcpu, KVM_RUN, 0) < 0) return (void)std::printf("KVM_RUN %s\n", error_text().c_str());
    if (run->exit_reason != KVM_EXIT_IO) return (void)std::printf("exit reason %u, not I/O\n", run->exit_reason);
  }
  clock_gettime(CLOCK_MONOTONIC, &ended);
  std::printf("%d port exits, %.0f a second\n", exits,
              exits / (static_cast<double>(ended.tv_sec - began.tv_sec) + static_cast<double>(ended.tv_nsec - began.tv_nsec) / 1e9));
}

bool enable(int fd, uint32_t cap, uint64_t argument, const char* name) {
  kvm_enable_cap request{};
  request.cap = cap;
  request.args[0] = argument;
  const bool ok = ioctl(fd, KVM_ENABLE_CAP, &request) == 0;
  std::printf("KVM_ENABLE_CAP %s %" PRIu64 ": %s\n", name, argument, ok ? "ok" : error_text().c_str());
  return ok;
}

void print_attributes(int kvm, int vcpu) {
  std::puts("\n# extended state and events");
  kvm_device_attr attribute{};
  uint64_t value = 0;
  attribute.attr = KVM_X86_XCOMP_GUEST_SUPP;
  attribute.addr = reinterpret_cast<uint64_t>(&value);
  if (ioctl(kvm, KVM_GET_DEVICE_ATTR, &attribute) == 0)
    std::printf("KVM_X86_XCOMP_GUEST_SUPP %" PRIx64 "\n", value);
  else
    std::printf("KVM_X86_XCOMP_GUEST_SUPP %s\n", error_text().c_str());
  kvm_xcrs xcrs{};
  if (ioctl(vcpu, KVM_GET_XCRS, &xcrs) == 0)
    std::printf("xcrs %u, xcr%u = %" PRIx64 "\n", xcrs.nr_xcrs, xcrs.xcrs[0].xcr, static_cast<uint64_t>(xcrs.xcrs[0].value));
  kvm_vcpu_events events{};
  if (ioctl(vcpu, KVM_GET_VCPU_EVENTS, &events) == 0) std::printf("vcpu events flags %x\n", events.flags);
  kvm_lapic_state apic{};
  if (ioctl(vcpu, KVM_GET_LAPIC, &apic) == 0) {
    uint32_t version;
    std::memcpy(&version, apic.regs + 0x30, 4);
    std::printf("local APIC version register %08x\n", version);
  } else {
    std::printf("KVM_GET_LAPIC %s\n", error_text().c_str());
  }
  kvm_debugregs debug{};
  if (ioctl(vcpu, KVM_GET_DEBUGREGS, &debug) == 0)
    std::printf("dr6 %" PRIx64 " dr7 %" PRIx64 "\n", static_cast<uint64_t>(debug.dr6), static_cast<uint64_t>(debug.dr7));
}

}  // namespace

int main() {
  const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) return std::printf("/dev/kvm: %s\n", std::strerror(errno)), 1;
  print_host(kvm);
  const int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (vm < 0) return std::printf("KVM_CREATE_VM %s\n", error_text().c_str()), 1;
  print_capabilities(kvm, vm);

  std::puts("\n# set-up");
  enable(vm, KVM_CAP_SPLIT_IRQCHIP, 24, "SPLIT_IRQCHIP");
  enable(vm, KVM_CAP_X2APIC_API, 3, "X2APIC_API");
  enable(vm, KVM_CAP_EXCEPTION_PAYLOAD, 1, "EXCEPTION_PAYLOAD");
  enable(vm, 218, 1, "X86_TRIPLE_FAULT_EVENT");
  enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 3, "MANUAL_DIRTY_LOG_PROTECT2");
  enable(vm, KVM_CAP_DIRTY_LOG_RING, 65536, "DIRTY_LOG_RING");
  enable(vm, KVM_CAP_PMU_CAPABILITY, 1, "PMU_CAPABILITY (off)");
  const int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
  std::printf("KVM_CREATE_VCPU: %s\n", vcpu < 0 ? error_text().c_str() : "ok");
  if (vcpu < 0) return 1;
  enable(vcpu, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1, "ENFORCE_PV_FEATURE_CPUID");

  const auto cpuid = print_cpuid(kvm, KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID");
  print_cpuid(kvm, KVM_GET_EMULATED_CPUID, "KVM_GET_EMULATED_CPUID");
  std::printf("KVM_SET_CPUID2 of the supported: %s\n", ioctl(vcpu, KVM_SET_CPUID2, cpuid.get()) < 0 ? error_text().c_str() : "ok");
  print_msrs(kvm, indices(kvm, KVM_GET_MSR_FEATURE_INDEX_LIST), "feature MSRs: index value", false);
  print_msrs(vcpu, indices(kvm, KVM_GET_MSR_INDEX_LIST), "MSRs of a fresh vCPU: index value", true);
  run_a_little(kvm, vm, vcpu);
  print_clock(vm, vcpu);
  print_attributes(kvm, vcpu);
  return 0;
}
