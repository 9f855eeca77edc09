// Opening /dev/kvm and reading its capabilities (Linux Documentation/virt/kvm/api.rst).
#include "cpu/kvm/system.hpp"

#include <fmt/format.h>
#include "cpu/kvm/kvm_abi.hpp"

#include <cerrno>
#include <algorithm>
#include <cstring>
#include <type_traits>

namespace stasis::kvm {
namespace {

struct Needed {
  unsigned long capability;
  std::string_view name;
};
constexpr Needed kNeeded[] = {
    {KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP"}, {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"}, {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"}, {KVM_CAP_SREGS2, "KVM_CAP_SREGS2"},
    {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"}, {KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ"},
    {KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK"}, {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_X2APIC_API, "KVM_CAP_X2APIC_API"}, {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"}};

constexpr u32 kMostLeaves = 256, kMostMsrs = 1024;
constexpr u32 kArchCapabilities = 0x10a;

// A structure with a flexible array behind it.
template <class Head, class Item>
class Listed {
 public:
  explicit Listed(u32 most) : bytes_(sizeof(Head) + most * sizeof(Item)) {}
  Head& head() { return *reinterpret_cast<Head*>(bytes_.data()); }
  Item* items() { return reinterpret_cast<Item*>(bytes_.data() + sizeof(Head)); }

 private:
  std::vector<u8> bytes_;
};

Result<std::vector<CpuidLeaf>> supported_cpuid(const Handle& device) {
  Listed<kvm_cpuid2, kvm_cpuid_entry2> list(kMostLeaves);
  list.head().nent = kMostLeaves;
  STASIS_TRY(device.call("KVM_GET_SUPPORTED_CPUID", KVM_GET_SUPPORTED_CPUID, &list.head()));
  std::vector<CpuidLeaf> leaves;
  for (u32 i = 0; i < std::min(list.head().nent, kMostLeaves); ++i) {
    const kvm_cpuid_entry2& e = list.items()[i];
    leaves.push_back({e.function, e.index, e.eax, e.ebx, e.ecx, e.edx});
  }
  return leaves;
}

Result<std::vector<u32>> msr_list(const Handle& device) {
  Listed<kvm_msr_list, u32> list(kMostMsrs);
  list.head().nmsrs = kMostMsrs;
  STASIS_TRY(device.call("KVM_GET_MSR_INDEX_LIST", KVM_GET_MSR_INDEX_LIST, &list.head()));
  return std::vector<u32>(list.items(), list.items() + std::min(list.head().nmsrs, kMostMsrs));
}

u64 feature_msr(const Handle& device, u32 index) {
  Listed<kvm_msrs, kvm_msr_entry> list(1);
  list.head().nmsrs = 1;
  list.items()[0].index = index;
  return device.ask(KVM_GET_MSRS, &list.head()) == 1 ? list.items()[0].data : 0;
}

}  // namespace

Result<long> Handle::call(std::string_view what, unsigned long request, void* argument) const {
  const long result = kernel_->ioctl(fd_, request, argument);
  if (result < 0) return fail_errno("kvm", what, static_cast<int>(-result));
  return result;
}

Result<long> Handle::call_value(std::string_view what, unsigned long request, u64 argument) const {
  const long result = kernel_->ioctl_value(fd_, request, argument);
  if (result < 0) return fail_errno("kvm", what, static_cast<int>(-result));
  return result;
}

long System::has(unsigned long capability) const { return kernel->ioctl_value(device.get(), KVM_CHECK_EXTENSION, capability); }

Result<System> System::open(std::shared_ptr<Kernel> kernel) {
  const int fd = kernel->open();
  if (fd == -ENOENT || fd == -ENXIO || fd == -ENODEV)
    return fail_errno("/dev/kvm", "no KVM on this host", -fd, "load kvm_intel or kvm_amd, or use --engine soft");
  if (fd == -EACCES || fd == -EPERM)
    return fail(ErrorCode::permission, "/dev/kvm", std::string("may not be opened: ") + std::strerror(-fd),
                "join the group that owns it (often 'kvm'), or use --engine soft");
  if (fd < 0) return fail_errno("/dev/kvm", "open", -fd, "use --engine soft");
  System system{.kernel = kernel, .device = Handle(kernel, fd), .module = kernel->module(), .cpuid = {}, .msrs = {}};
  STASIS_TRY_SET(const long version, system.device.call_value("KVM_GET_API_VERSION", KVM_GET_API_VERSION));
  if (version != KVM_API_VERSION)
    return fail(ErrorCode::unsupported, "kvm", fmt::format("its API version is {}, wanted is {}", version, KVM_API_VERSION), "use --engine soft");
  std::string missing;
  for (const Needed& needed : kNeeded)
    if (system.has(needed.capability) <= 0) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", needed.name);
  if (!missing.empty())
    return fail(ErrorCode::unsupported, "kvm", "this kernel's KVM lacks " + missing, "use Linux 6.1 or newer, or --engine soft");
  STASIS_TRY_SET(const long run_size, system.device.call_value("KVM_GET_VCPU_MMAP_SIZE", KVM_GET_VCPU_MMAP_SIZE));
  system.run_size = static_cast<u64>(run_size);
  system.tsc_scaling = system.has(KVM_CAP_TSC_CONTROL) > 0;
  system.xsave2 = system.has(KVM_CAP_XSAVE2) > static_cast<long>(sizeof(kvm_xsave));
  system.exception_payload = system.has(KVM_CAP_EXCEPTION_PAYLOAD) > 0;
  system.smm = system.has(KVM_CAP_X86_SMM) > 0;
  system.pmu_switch = system.has(KVM_CAP_PMU_CAPABILITY) > 0;
  system.msr_exits = system.has(KVM_CAP_X86_USER_SPACE_MSR) > 0 && system.has(KVM_CAP_X86_MSR_FILTER) > 0;
  system.pv_enforced = system.has(KVM_CAP_ENFORCE_PV_FEATURE_CPUID) > 0;
  system.most_vcpus = static_cast<u32>(std::max(1l, system.has(KVM_CAP_MAX_VCPUS)));
  STASIS_TRY_SET(system.cpuid, supported_cpuid(system.device));
  STASIS_TRY_SET(system.msrs, msr_list(system.device));
  system.arch_capabilities = feature_msr(system.device, kArchCapabilities);
  // The rate is asked of a machine: without scaling, it is the host's.
  STASIS_TRY_SET(const long vm, system.device.call_value("KVM_CREATE_VM", KVM_CREATE_VM));
  const Handle probe(kernel, static_cast<int>(vm));
  STASIS_TRY_SET(const long khz, probe.call_value("KVM_GET_TSC_KHZ", KVM_GET_TSC_KHZ));
  system.tsc_hz = static_cast<u64>(khz) * 1000;
  if (system.tsc_hz == 0) return fail(ErrorCode::unsupported, "kvm", "tells no TSC rate", "use --engine soft");
  return system;
}

CpuOffer System::offer() const {
  constexpr u32 kMostCpus = 16;
  CpuOffer offer{.engine = "kvm", .cpuid = cpuid, .arch_capabilities = arch_capabilities, .msrs = msrs, .tsc_hz = tsc_hz,
                 .any_tsc_rate = tsc_scaling, .most_cpus = std::min(most_vcpus, kMostCpus)};
  std::ranges::sort(offer.msrs);
  for (CpuidLeaf& leaf : offer.cpuid) {
    if (leaf.leaf == 0x8000'0008) offer.physical_bits = leaf.eax & 0xff;
    if (leaf.leaf == 1) leaf.ecx |= 1u << 24 | 1u << 21;  // TSC-deadline and x2APIC: the in-kernel local APIC's, not listed
  }
  return offer;
}

Choice choose(Kernel& kernel) {
  const std::string module = kernel.module();
  if (module.empty()) return {false, "no KVM module is loaded"};
  if (module != "kvm_intel" && module != "kvm_amd")
    return {false, fmt::format("the KVM module is {}, a software emulation; --engine kvm would take it", module)};
  const int fd = kernel.open();
  if (fd < 0) return {false, fmt::format("/dev/kvm cannot be opened: {}", std::strerror(-fd))};
  kernel.close(fd);
  return {true, fmt::format("{} is loaded and /dev/kvm opens", module)};
}

}  // namespace stasis::kvm
