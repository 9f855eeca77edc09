// The architectural state of one virtual CPU, declared once for every engine.
//
// Vocabulary: the state save area of an AMD VMCB (AMD64 APM vol. 2, 15.5 and Appendix B) and what
// it leaves out: FPU, pending events, MTRRs, MP state. Defaults are the values after power-on
// (Intel SDM vol. 3A, table 10-1). The local APIC has a record of its own (cpu/local_apic.hpp).
#pragma once

#include "state/codec.hpp"

namespace stasis {

// A segment register with its hidden part. `attributes` in the VMCB's 12-bit form: type 3:0, S 4, DPL 6:5,
// P 7, AVL 8, L 9, D/B 10, G 11. `limit` is in bytes (already scaled by G).
struct SegmentState {
  u16 selector = 0;
  u16 attributes = 0x93;
  u32 limit = 0xffff;
  u64 base = 0;
  static constexpr auto layout() {
    using S = SegmentState;
    return state::Layout("x86.segment", 1, state::field<&S::selector>("selector").hex(),
                         state::field<&S::attributes>("attributes").hex().allow(0xfff).help("VMCB form: type, S, DPL, P, AVL, L, D/B, G"),
                         state::field<&S::limit>("limit").hex(), state::field<&S::base>("base").hex());
  }
  unsigned type() const { return attributes & 0xf; }
  bool code_or_data() const { return attributes >> 4 & 1; }
  unsigned dpl() const { return attributes >> 5 & 3; }
  bool present() const { return attributes >> 7 & 1; }
  bool long_mode() const { return attributes >> 9 & 1; }
  bool big() const { return attributes >> 10 & 1; }  // D/B
  bool operator==(const SegmentState&) const = default;
};

struct DescriptorTableState {
  u64 base = 0;
  u16 limit = 0xffff;
  static constexpr auto layout() {
    using S = DescriptorTableState;
    return state::Layout("x86.descriptor_table", 1, state::field<&S::base>("base").hex(), state::field<&S::limit>("limit").hex());
  }
  bool operator==(const DescriptorTableState&) const = default;
};

// x87, MMX and SSE, as FXSAVE holds them (SDM vol. 1, 10.5.1).
struct FpuState {
  u16 fcw = 0x40;
  u16 fsw = 0;
  u8 ftw = 0xff;  // abridged: a set bit means the physical register is not empty
  u16 fop = 0;
  u64 fip = 0;
  u64 fdp = 0;
  u32 mxcsr = 0x1f80;
  std::array<std::array<u8, 10>, 8> st{};   // ST(0) first
  std::array<std::array<u8, 16>, 16> xmm{};
  static constexpr u32 kMxcsrMask = 0xffff;
  static constexpr auto layout() {
    using S = FpuState;
    return state::Layout("x86.fpu", 1, state::field<&S::fcw>("fcw").hex(), state::field<&S::fsw>("fsw").hex(),
                         state::field<&S::ftw>("ftw").hex().help("abridged tag word: set bits are registers in use"),
                         state::field<&S::fop>("fop").hex().allow(0x7ff), state::field<&S::fip>("fip").hex(),
                         state::field<&S::fdp>("fdp").hex(), state::field<&S::mxcsr>("mxcsr").hex().allow(kMxcsrMask),
                         state::field<&S::st>("st").help("80-bit registers, ST(0) first"), state::field<&S::xmm>("xmm"));
  }
  bool operator==(const FpuState&) const = default;
};

struct MtrrState {
  u64 def_type = 0;
  std::array<u64, 11> fixed{};  // MSRs 0x250, 0x258, 0x259, 0x268..0x26f
  std::array<u64, 8> base{};
  std::array<u64, 8> mask{};
  static constexpr auto layout() {
    using S = MtrrState;
    return state::Layout("x86.mtrr", 1, state::field<&S::def_type>("def_type").hex(), state::field<&S::fixed>("fixed").hex(),
                         state::field<&S::base>("base").hex(), state::field<&S::mask>("mask").hex());
  }
  bool operator==(const MtrrState&) const = default;
};

// How an event came to be: it decides which gate checks are made (by_vector: exception below 32, else interrupt).
enum class EventType : u8 { by_vector, exception, interrupt, nmi, software };
inline constexpr std::array<std::string_view, 5> kEventTypeNames{"by_vector", "exception", "interrupt", "nmi", "software"};

// An event on its way to the processor. A VMCB's EVENTINJ and EXITINTINFO (APM vol. 2, 15.20), and what
// an exception leaves in CR2 or DR6 when it is delivered (`payload`; not there yet while it is pending).
struct PendingEventState {
  bool valid = false;
  u8 vector = 0;
  bool has_error_code = false;
  u32 error_code = 0;
  EventType type = EventType::by_vector;
  bool has_payload = false;
  u64 payload = 0;
  static constexpr auto layout() {
    using S = PendingEventState;
    return state::Layout("x86.pending_event", 2, state::field<&S::valid>("valid"), state::field<&S::vector>("vector"),
                         state::field<&S::has_error_code>("has_error_code"), state::field<&S::error_code>("error_code").hex(),
                         state::field<&S::type>("type").names(kEventTypeNames).since(2),
                         state::field<&S::has_payload>("has_payload").since(2),
                         state::field<&S::payload>("payload").hex().since(2).help("for CR2 (#PF) or DR6 (#DB)"));
  }
  bool operator==(const PendingEventState&) const = default;
};

// What XSAVE holds beside x87 and SSE, by component (SDM vol. 1, 13.4). Components that the CPU contract does not
// show keep their initial values. A field's register N is element N.
struct XsaveState {
  u64 xcr0 = 1;
  u64 xss = 0;
  u64 in_use = 0;                                   // XSTATE_BV; 0 where the contract has no XSAVE
  std::array<std::array<u8, 16>, 16> ymm_high{};    // component 2
  std::array<std::array<u8, 16>, 4> bounds{};       // 3: BND0..BND3
  u64 bndcfgu = 0, bndstatus = 0;                   // 4
  std::array<u64, 8> opmask{};                      // 5: K0..K7
  std::array<std::array<u8, 32>, 16> zmm_high{};    // 6: bits 511:256 of ZMM0..15
  std::array<std::array<u8, 64>, 16> zmm16_31{};    // 7
  u32 pkru = 0;                                     // 9
  std::vector<u8> tile_config{};                    // 17: 64 bytes, or empty: initial
  std::vector<u8> tile_data{};                      // 18: 8192 bytes, or empty: initial
  static constexpr u64 kHeld = 0x602ff;             // the components that have a field here
  static constexpr auto layout() {
    using S = XsaveState;
    return state::Layout("x86.xsave", 1, state::field<&S::xcr0>("xcr0").hex().allow(kHeld), state::field<&S::xss>("xss").hex(),
                         state::field<&S::in_use>("in_use").hex().allow(kHeld).help("XSTATE_BV: components not in their initial state"),
                         state::field<&S::ymm_high>("ymm_high").help("bits 255:128 of YMM0..15"),
                         state::field<&S::bounds>("bounds").help("BND0..BND3"), state::field<&S::bndcfgu>("bndcfgu").hex(),
                         state::field<&S::bndstatus>("bndstatus").hex(), state::field<&S::opmask>("opmask").hex().help("K0..K7"),
                         state::field<&S::zmm_high>("zmm_high").help("bits 511:256 of ZMM0..15"),
                         state::field<&S::zmm16_31>("zmm16_31"), state::field<&S::pkru>("pkru").hex(),
                         state::field<&S::tile_config>("tile_config").range(0, 64).help("64 bytes, or none: initial"),
                         state::field<&S::tile_data>("tile_data").range(0, 8192).help("8192 bytes, or none: initial"));
  }
  bool operator==(const XsaveState&) const = default;
};

// One bank of the machine-check architecture (SDM vol. 3B, 16.3).
struct MachineCheckState {
  u64 mcg_status = 0, ctl = 0, status = 0, addr = 0, misc = 0;
  static constexpr auto layout() {
    using S = MachineCheckState;
    return state::Layout("x86.machine_check", 1, state::field<&S::mcg_status>("mcg_status").hex(), state::field<&S::ctl>("ctl").hex(),
                         state::field<&S::status>("status").hex(), state::field<&S::addr>("addr").hex(),
                         state::field<&S::misc>("misc").hex());
  }
  bool operator==(const MachineCheckState&) const = default;
};

// System management mode (SDM vol. 3C, 32).
struct SmmState {
  bool active = false, pending = false;
  bool inside_nmi = false;    // entered while NMIs were blocked
  bool latched_init = false;  // an INIT waits for RSM
  u64 smbase = 0x3'0000;
  static constexpr auto layout() {
    using S = SmmState;
    return state::Layout("x86.smm", 1, state::field<&S::active>("active"), state::field<&S::pending>("pending"),
                         state::field<&S::inside_nmi>("inside_nmi"), state::field<&S::latched_init>("latched_init"),
                         state::field<&S::smbase>("smbase").hex());
  }
  bool operator==(const SmmState&) const = default;
};

// The MSRs of DBGCTL and of the last branch (APM vol. 2, 15.23).
struct LastBranchState {
  u64 debug_ctl = 0, branch_from = 0, branch_to = 0, exception_from = 0, exception_to = 0;
  static constexpr auto layout() {
    using S = LastBranchState;
    return state::Layout("x86.last_branch", 1, state::field<&S::debug_ctl>("debug_ctl").hex(), state::field<&S::branch_from>("branch_from").hex(),
                         state::field<&S::branch_to>("branch_to").hex(), state::field<&S::exception_from>("exception_from").hex(),
                         state::field<&S::exception_to>("exception_to").hex());
  }
  bool operator==(const LastBranchState&) const = default;
};

// An MSR that has no field of its own; which ones may stand here is decided in cpu/msr_table.hpp.
struct MsrState {
  u32 index = 0;
  u64 value = 0;
  static constexpr auto layout() {
    using S = MsrState;
    return state::Layout("x86.msr", 1, state::field<&S::index>("index").hex(), state::field<&S::value>("value").hex());
  }
  bool operator==(const MsrState&) const = default;
};

enum class InterruptShadow : u8 { none, sti, mov_ss };
enum class Activity : u8 { running, halted, wait_for_sipi, shutdown };
inline constexpr std::array<std::string_view, 3> kShadowNames{"none", "sti", "mov_ss"};
inline constexpr std::array<std::string_view, 4> kActivityNames{"running", "halted", "wait_for_sipi", "shutdown"};

enum Gpr : u8 { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi, kR8, kR9, kR10, kR11, kR12, kR13, kR14, kR15 };

struct VcpuState {
  std::array<u64, 16> gpr{0, 0, 0x000a06f1};  // in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15
  u64 rip = 0xfff0;
  u64 rflags = 2;
  SegmentState es{}, cs{.selector = 0xf000, .attributes = 0x9b, .base = 0xffff'0000}, ss{}, ds{}, fs{}, gs{};
  SegmentState ldtr{.attributes = 0x82}, tr{.attributes = 0x8b};
  DescriptorTableState gdtr{}, idtr{};
  u8 cpl = 0;
  u64 cr0 = 0x6000'0010, cr2 = 0, cr3 = 0, cr4 = 0;
  std::array<u64, 4> dr{};
  u64 dr6 = 0xffff'0ff0, dr7 = 0x400;
  u64 efer = 0;
  u64 star = 0, lstar = 0, cstar = 0, sfmask = 0, kernel_gs_base = 0;
  u64 sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
  u64 pat = 0x0007'0406'0007'0406;
  u64 tsc_offset = 0;   // guest TSC = guest clock in TSC ticks + this (wraps)
  u64 tsc_adjust = 0;
  u64 tsc_aux = 0;
  u64 misc_enable = 1;
  u64 spec_ctrl = 0;
  MtrrState mtrr{};
  FpuState fpu{};
  PendingEventState pending{};    // being delivered: comes before anything else
  PendingEventState exception{};  // raised by an instruction; its payload is not yet in CR2 or DR6
  bool nmi_pending = false;
  bool nmi_blocked = false;
  InterruptShadow shadow = InterruptShadow::none;
  Activity activity = Activity::running;
  u64 retired = 0;      // instructions since power-on; a REP counts each iteration. Stands still where nobody counts
  XsaveState xsave{};
  std::array<u64, 4> pdpte{};  // PAE paging's loaded directory pointers
  bool pdpte_valid = false;    // false: as they stand in memory at CR3
  SmmState smm{};
  MachineCheckState machine_check{};
  LastBranchState last_branch{};
  u64 hwcr = 0;                // AMD C001_0015
  u64 pvclock_system_time = 0, pvclock_wall_clock = 0;  // MSRs 0x4B564D01, 0x4B564D00
  std::vector<MsrState> other_msrs{};                   // ascending by index; those that are zero are left out

  static constexpr auto layout() {
    using S = VcpuState;
    return state::Layout(
        "x86.vcpu", 2, state::field<&S::gpr>("gpr").hex().help("RAX RCX RDX RBX RSP RBP RSI RDI R8..R15"),
        state::field<&S::rip>("rip").hex(), state::field<&S::rflags>("rflags").hex().allow(0x3f'7fd7),
        state::field<&S::es>("es"), state::field<&S::cs>("cs"), state::field<&S::ss>("ss"), state::field<&S::ds>("ds"),
        state::field<&S::fs>("fs"), state::field<&S::gs>("gs"), state::field<&S::ldtr>("ldtr"), state::field<&S::tr>("tr"),
        state::field<&S::gdtr>("gdtr"), state::field<&S::idtr>("idtr"), state::field<&S::cpl>("cpl").range(0, 3),
        state::field<&S::cr0>("cr0").hex(), state::field<&S::cr2>("cr2").hex(), state::field<&S::cr3>("cr3").hex(),
        state::field<&S::cr4>("cr4").hex(), state::field<&S::dr>("dr").hex().help("DR0..DR3"),
        state::field<&S::dr6>("dr6").hex(), state::field<&S::dr7>("dr7").hex(), state::field<&S::efer>("efer").hex(),
        state::field<&S::star>("star").hex(), state::field<&S::lstar>("lstar").hex(), state::field<&S::cstar>("cstar").hex(),
        state::field<&S::sfmask>("sfmask").hex(), state::field<&S::kernel_gs_base>("kernel_gs_base").hex(),
        state::field<&S::sysenter_cs>("sysenter_cs").hex(), state::field<&S::sysenter_esp>("sysenter_esp").hex(),
        state::field<&S::sysenter_eip>("sysenter_eip").hex(), state::field<&S::pat>("pat").hex(),
        state::field<&S::tsc_offset>("tsc_offset").hex().unit("ticks"), state::field<&S::tsc_adjust>("tsc_adjust").hex(),
        state::field<&S::tsc_aux>("tsc_aux").hex(), state::field<&S::misc_enable>("misc_enable").hex(),
        state::field<&S::spec_ctrl>("spec_ctrl").hex(), state::field<&S::mtrr>("mtrr"), state::field<&S::fpu>("fpu"),
        state::field<&S::pending>("pending").help("event being delivered: comes before anything else"),
        state::field<&S::nmi_pending>("nmi_pending"), state::field<&S::nmi_blocked>("nmi_blocked"),
        state::field<&S::shadow>("interrupt_shadow").names(kShadowNames),
        state::field<&S::activity>("activity").names(kActivityNames),
        state::field<&S::retired>("retired").unit("instructions"), state::field<&S::exception>("exception").since(2).help("raised by an instruction, not yet on its way"),
        state::field<&S::xsave>("xsave").since(2), state::field<&S::pdpte>("pdpte").hex().since(2), state::field<&S::pdpte_valid>("pdpte_valid").since(2),
        state::field<&S::smm>("smm").since(2), state::field<&S::machine_check>("machine_check").since(2),
        state::field<&S::last_branch>("last_branch").since(2), state::field<&S::hwcr>("hwcr").hex().since(2),
        state::field<&S::pvclock_system_time>("pvclock_system_time").hex().since(2).help("MSR 0x4B564D01"),
        state::field<&S::pvclock_wall_clock>("pvclock_wall_clock").hex().since(2).help("MSR 0x4B564D00"),
        state::field<&S::other_msrs>("other_msrs").since(2).range(0, 256).help("MSRs without a field of their own"));
  }
  bool operator==(const VcpuState&) const = default;
};

}  // namespace stasis
