// Registers, segments, control registers, activity (Linux Documentation/virt/kvm/api.rst).
#include "cpu/kvm/vcpu.hpp"

#include <fmt/format.h>
#include "cpu/kvm/kvm_abi.hpp"

#include <cerrno>
#include <cstring>

namespace stasis::kvm {
namespace {

constexpr u32 kXsaveLeaf = 0xd;

SegmentState segment_from(const kvm_segment& s) {
  SegmentState out{.selector = s.selector, .attributes = 0, .limit = s.limit, .base = s.base};
  out.attributes = static_cast<u16>(s.type | s.s << 4 | s.dpl << 5 | (s.present && !s.unusable) << 7 | s.avl << 8 | s.l << 9 | s.db << 10 | s.g << 11);
  return out;
}

kvm_segment segment_to(const SegmentState& s) {
  kvm_segment out{};
  out.base = s.base;
  out.limit = s.limit;
  out.selector = s.selector;
  out.type = s.attributes & 0xf;
  out.s = s.attributes >> 4 & 1;
  out.dpl = s.attributes >> 5 & 3;
  out.present = s.attributes >> 7 & 1;
  out.avl = s.attributes >> 8 & 1;
  out.l = s.attributes >> 9 & 1;
  out.db = s.attributes >> 10 & 1;
  out.g = s.attributes >> 11 & 1;
  out.unusable = !out.present;
  return out;
}

// KVM_GET_REGS in the encoding order of Gpr.
constexpr __u64 kvm_regs::*kGprs[] = {&kvm_regs::rax, &kvm_regs::rcx, &kvm_regs::rdx, &kvm_regs::rbx, &kvm_regs::rsp, &kvm_regs::rbp,
                                      &kvm_regs::rsi, &kvm_regs::rdi, &kvm_regs::r8,  &kvm_regs::r9,  &kvm_regs::r10, &kvm_regs::r11,
                                      &kvm_regs::r12, &kvm_regs::r13, &kvm_regs::r14, &kvm_regs::r15};

u32 activity_to(Activity activity) {
  switch (activity) {
    case Activity::halted: return KVM_MP_STATE_HALTED;
    case Activity::wait_for_sipi: return KVM_MP_STATE_INIT_RECEIVED;
    default: return KVM_MP_STATE_RUNNABLE;
  }
}

bool subleaf_matters(u32 leaf) { return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x14 || leaf == 0x1f || leaf == 0x8000'001d; }

}  // namespace

Result<> Vcpu::call(std::string_view what, unsigned long request, void* argument) const {
  auto done = handle_.call(fmt::format("{} of vCPU {}", what, id_), request, argument);
  if (!done) return std::unexpected(std::move(done).error());
  return {};
}

Result<Vcpu> Vcpu::create(const Vm& vm, const CpuContract& contract, u32 id) {
  const System& system = vm.system();
  STASIS_TRY_SET(const long fd, vm.handle().call_value(fmt::format("KVM_CREATE_VCPU {}", id), KVM_CREATE_VCPU, id));
  bool has_xsave = false;
  for (const CpuidLeaf& leaf : contract.cpuid) has_xsave |= leaf.leaf == 1 && (leaf.ecx >> 26 & 1);
  Vcpu vcpu(vm, Handle(system.kernel, static_cast<int>(fd)), id, has_xsave);
  vcpu.components_ = xsave_components(contract);
  vcpu.run_ = static_cast<::kvm_run*>(system.kernel->map(static_cast<int>(fd), system.run_size));
  if (!vcpu.run_) return fail_errno("kvm", fmt::format("mapping vCPU {}", id), errno);
  if (system.xsave2) {
    STASIS_TRY_SET(const long size, vm.handle().call_value("KVM_CHECK_EXTENSION", KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2));
    vcpu.xsave_size_ = std::max<u64>(4096, static_cast<u64>(size));
  }
  for (const CpuidLeaf& leaf : system.cpuid)
    if (leaf.leaf == kXsaveLeaf && leaf.subleaf >= 2 && leaf.subleaf < 64 && (vcpu.components_ >> leaf.subleaf & 1) && !(leaf.ecx & 1) && u64{leaf.ebx} + leaf.eax <= vcpu.xsave_size_)
      vcpu.component_at_[leaf.subleaf] = leaf.ebx;
  STASIS_TRY(vcpu.show(contract));
  STASIS_TRY(vcpu.find_msrs());
  return vcpu;
}

Vcpu::Vcpu(Vcpu&& other) noexcept
    : vm_(other.vm_), handle_(std::move(other.handle_)), id_(other.id_), has_xsave_(other.has_xsave_), components_(other.components_), run_(std::exchange(other.run_, nullptr)),
      xsave_size_(other.xsave_size_), component_at_(other.component_at_), msrs_(std::move(other.msrs_)) {}

Vcpu::~Vcpu() {
  if (run_) vm_->system().kernel->unmap(run_, vm_->system().run_size);
}

// What the guest is shown: CPUID, constant MSRs, TSC rate.
Result<> Vcpu::show(const CpuContract& contract) {
  const std::vector<CpuidLeaf> leaves = cpuid_for(contract, id_);
  std::vector<u8> bytes(sizeof(kvm_cpuid2) + leaves.size() * sizeof(kvm_cpuid_entry2));
  auto* const head = reinterpret_cast<kvm_cpuid2*>(bytes.data());
  auto* const entries = reinterpret_cast<kvm_cpuid_entry2*>(bytes.data() + sizeof(kvm_cpuid2));
  head->nent = static_cast<u32>(leaves.size());
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const CpuidLeaf& l = leaves[i];
    entries[i].function = l.leaf, entries[i].index = l.subleaf;
    entries[i].flags = subleaf_matters(l.leaf) ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    entries[i].eax = l.eax, entries[i].ebx = l.ebx, entries[i].ecx = l.ecx, entries[i].edx = l.edx;
  }
  STASIS_TRY(call("KVM_SET_CPUID2", KVM_SET_CPUID2, head));
  const System& system = vm_->system();
  if (system.pv_enforced) {
    kvm_enable_cap request{};
    request.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID;
    request.args[0] = 1;
    STASIS_TRY(call("KVM_CAP_ENFORCE_PV_FEATURE_CPUID", KVM_ENABLE_CAP, &request));
  }
  kvm_device_attr offset{.flags = 0, .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = 0};
  STASIS_TRY(call("KVM_VCPU_TSC_OFFSET", KVM_HAS_DEVICE_ATTR, &offset));
  if (system.scales_to(contract.tsc_hz)) {
    auto done = handle_.call_value(fmt::format("KVM_SET_TSC_KHZ of vCPU {}", id_), KVM_SET_TSC_KHZ, contract.tsc_hz / 1000);
    if (!done) return std::unexpected(std::move(done).error());
  }
  u64 mce = 1;  // one bank
  STASIS_TRY(call("KVM_X86_SETUP_MCE", KVM_X86_SETUP_MCE, &mce));
  STASIS_TRY(write_msr(0x10a, contract.arch_capabilities));
  STASIS_TRY(write_msr(0x8b, 1ull << 32));  // microcode revision
  return write_msr(0xce, 0);                // no CPUID faulting to be switched on
}

Result<> Vcpu::read(VcpuState& out) {
  kvm_mp_state activity{};
  STASIS_TRY(call("KVM_GET_MP_STATE", KVM_GET_MP_STATE, &activity));  // first: it lets a waiting INIT or SIPI happen
  out.activity = activity.mp_state == KVM_MP_STATE_HALTED ? Activity::halted
                 : activity.mp_state == KVM_MP_STATE_RUNNABLE ? Activity::running : Activity::wait_for_sipi;
  kvm_regs regs{};
  STASIS_TRY(call("KVM_GET_REGS", KVM_GET_REGS, &regs));
  for (unsigned i = 0; i < 16; ++i) out.gpr[i] = regs.*kGprs[i];
  out.rip = regs.rip;
  out.rflags = regs.rflags;
  kvm_sregs2 s{};
  STASIS_TRY(call("KVM_GET_SREGS2", KVM_GET_SREGS2, &s));
  out.es = segment_from(s.es), out.cs = segment_from(s.cs), out.ss = segment_from(s.ss);
  out.ds = segment_from(s.ds), out.fs = segment_from(s.fs), out.gs = segment_from(s.gs);
  out.ldtr = segment_from(s.ldt), out.tr = segment_from(s.tr);
  out.gdtr = {.base = s.gdt.base, .limit = s.gdt.limit};
  out.idtr = {.base = s.idt.base, .limit = s.idt.limit};
  out.cr0 = s.cr0, out.cr2 = s.cr2, out.cr3 = s.cr3, out.cr4 = s.cr4, out.efer = s.efer;
  out.cpl = static_cast<u8>(out.ss.dpl());
  out.pdpte_valid = s.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
  for (unsigned i = 0; i < 4; ++i) out.pdpte[i] = out.pdpte_valid ? s.pdptrs[i] : 0;
  kvm_debugregs debug{};
  STASIS_TRY(call("KVM_GET_DEBUGREGS", KVM_GET_DEBUGREGS, &debug));
  for (unsigned i = 0; i < 4; ++i) out.dr[i] = debug.db[i];
  out.dr6 = debug.dr6, out.dr7 = debug.dr7;
  STASIS_TRY(read_fpu(out));
  STASIS_TRY(read_events(out));
  return read_msrs(out);
}

Result<> Vcpu::write(const VcpuState& in) {
  kvm_sregs2 s{};
  STASIS_TRY(call("KVM_GET_SREGS2", KVM_GET_SREGS2, &s));  // the local APIC's base and CR8 stay: write_apic()'s
  s.es = segment_to(in.es), s.cs = segment_to(in.cs), s.ss = segment_to(in.ss);
  s.ds = segment_to(in.ds), s.fs = segment_to(in.fs), s.gs = segment_to(in.gs);
  s.ldt = segment_to(in.ldtr), s.tr = segment_to(in.tr);
  s.ss.dpl = in.cpl;
  s.gdt = {.base = in.gdtr.base, .limit = in.gdtr.limit, .padding = {}};
  s.idt = {.base = in.idtr.base, .limit = in.idtr.limit, .padding = {}};
  s.cr0 = in.cr0, s.cr2 = in.cr2, s.cr3 = in.cr3, s.cr4 = in.cr4, s.efer = in.efer;
  s.flags = in.pdpte_valid ? KVM_SREGS2_FLAGS_PDPTRS_VALID : 0;
  for (unsigned i = 0; i < 4; ++i) s.pdptrs[i] = in.pdpte[i];
  STASIS_TRY(call("KVM_SET_SREGS2", KVM_SET_SREGS2, &s));
  kvm_regs regs{};
  for (unsigned i = 0; i < 16; ++i) regs.*kGprs[i] = in.gpr[i];
  regs.rip = in.rip;
  regs.rflags = in.rflags;
  STASIS_TRY(call("KVM_SET_REGS", KVM_SET_REGS, &regs));
  kvm_debugregs debug{};
  for (unsigned i = 0; i < 4; ++i) debug.db[i] = in.dr[i];
  debug.dr6 = in.dr6, debug.dr7 = in.dr7;
  STASIS_TRY(call("KVM_SET_DEBUGREGS", KVM_SET_DEBUGREGS, &debug));
  STASIS_TRY(write_fpu(in));
  STASIS_TRY(write_msrs(in));
  run_->ready_for_interrupt_injection = run_->if_flag = 0;  // of the state before
  if (in.activity == Activity::wait_for_sipi) STASIS_TRY(clear_smm());
  kvm_mp_state activity{.mp_state = activity_to(in.activity)};
  STASIS_TRY(call("KVM_SET_MP_STATE", KVM_SET_MP_STATE, &activity));
  return write_events(in);  // last: the others would drop what is pending
}

Result<u64> Vcpu::kernel_tsc_offset() const {
  u64 offset = 0;
  kvm_device_attr request{.flags = 0, .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = reinterpret_cast<u64>(&offset)};
  STASIS_TRY(call("reading KVM_VCPU_TSC_OFFSET", KVM_GET_DEVICE_ATTR, &request));
  return offset;
}

Result<> Vcpu::set_kernel_tsc_offset(u64 offset) {
  kvm_device_attr request{.flags = 0, .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = reinterpret_cast<u64>(&offset)};
  return call("setting KVM_VCPU_TSC_OFFSET", KVM_SET_DEVICE_ATTR, &request);
}

Result<u64> Vcpu::guest_tsc() const { return read_msr(0x10); }

}  // namespace stasis::kvm
