// Pending and injected events, interrupt shadow, SMM (KVM_GET_VCPU_EVENTS).
#include "cpu/kvm/kvm_abi.hpp"

#include "cpu/kvm/vcpu.hpp"

namespace stasis::kvm {
namespace {

constexpr u8 kNmiVector = 2;

EventType type_of(const PendingEventState& event) {
  if (event.type != EventType::by_vector) return event.type;
  return event.vector < 32 ? EventType::exception : EventType::interrupt;
}

void injected_to(kvm_vcpu_events& out, const PendingEventState& event) {
  switch (type_of(event)) {
    case EventType::nmi: out.nmi.injected = 1; break;
    case EventType::interrupt:
    case EventType::software:
      out.interrupt.injected = 1;
      out.interrupt.nr = event.vector;
      out.interrupt.soft = event.type == EventType::software;
      break;
    default:
      out.exception.injected = 1;
      out.exception.nr = event.vector;
      out.exception.has_error_code = event.has_error_code;
      out.exception.error_code = event.error_code;
  }
}

PendingEventState exception_from(const kvm_vcpu_events& e) {
  return {.valid = true, .vector = e.exception.nr, .has_error_code = e.exception.has_error_code != 0,
          .error_code = e.exception.has_error_code ? e.exception.error_code : 0, .type = EventType::exception,
          .has_payload = e.exception_has_payload != 0, .payload = e.exception_has_payload ? e.exception_payload : 0};
}

}  // namespace

Result<> Vcpu::read_events(VcpuState& out) const {
  kvm_vcpu_events e{};
  STASIS_TRY(call("KVM_GET_VCPU_EVENTS", KVM_GET_VCPU_EVENTS, &e));
  out.pending = out.exception = {};
  if (e.exception.injected) {
    out.pending = exception_from(e);
    out.pending.has_payload = false;
    out.pending.payload = 0;
  } else if (e.nmi.injected) {
    out.pending = {.valid = true, .vector = kNmiVector, .type = EventType::nmi};
  } else if (e.interrupt.injected) {
    out.pending = {.valid = true, .vector = e.interrupt.nr, .type = e.interrupt.soft ? EventType::software : EventType::interrupt};
  }
  if (e.exception.pending) out.exception = exception_from(e);
  out.nmi_pending = e.nmi.pending;
  out.nmi_blocked = e.nmi.masked;
  // SVM has one shadow bit and KVM then tells both: that is taken for STI's, the common one.
  out.shadow = e.interrupt.shadow == 0 ? InterruptShadow::none
               : e.interrupt.shadow & KVM_X86_SHADOW_INT_STI ? InterruptShadow::sti : InterruptShadow::mov_ss;
  // A processor that waits for its start takes no SMI: one that a guest sends it all the same is lost.
  const bool takes_smi = out.activity != Activity::wait_for_sipi;
  out.smm.active = e.smi.smm && takes_smi;
  out.smm.pending = e.smi.pending && takes_smi;
  out.smm.inside_nmi = e.smi.smm_inside_nmi;
  out.smm.latched_init = e.smi.latched_init;
  return {};
}

Result<> Vcpu::write_events(const VcpuState& in) {
  kvm_vcpu_events e{};
  const System& system = vm_->system();
  e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | (system.smm ? KVM_VCPUEVENT_VALID_SMM : 0u) |
            (system.exception_payload ? KVM_VCPUEVENT_VALID_PAYLOAD : 0u);
  if (in.pending.valid) injected_to(e, in.pending);
  if (in.exception.valid && !e.exception.injected) {
    e.exception.pending = 1;
    e.exception.nr = in.exception.vector;
    e.exception.has_error_code = in.exception.has_error_code;
    e.exception.error_code = in.exception.error_code;
    e.exception_has_payload = in.exception.has_payload;
    e.exception_payload = in.exception.payload;
  }
  e.nmi.pending = in.nmi_pending;
  e.nmi.masked = in.nmi_blocked;
  e.interrupt.shadow = in.shadow == InterruptShadow::sti ? KVM_X86_SHADOW_INT_STI : in.shadow == InterruptShadow::mov_ss ? KVM_X86_SHADOW_INT_MOV_SS : 0;
  e.smi.smm = in.smm.active;
  e.smi.pending = in.smm.pending;
  e.smi.smm_inside_nmi = in.smm.inside_nmi;
  e.smi.latched_init = in.smm.latched_init;
  return call("KVM_SET_VCPU_EVENTS", KVM_SET_VCPU_EVENTS, &e);
}

// KVM does not let a processor with an SMI wait for its start.
Result<> Vcpu::clear_smm() {
  if (!vm_->system().smm) return {};
  kvm_vcpu_events e{};
  e.flags = KVM_VCPUEVENT_VALID_SMM;
  return call("KVM_SET_VCPU_EVENTS", KVM_SET_VCPU_EVENTS, &e);
}

// As an injected event it is in the saved state until the guest has it, which KVM_INTERRUPT's would not be.
Result<> Vcpu::inject(u8 vector) {
  kvm_vcpu_events e{};
  STASIS_TRY(call("KVM_GET_VCPU_EVENTS", KVM_GET_VCPU_EVENTS, &e));
  e.flags = 0;  // the rest stays as it is
  e.interrupt.injected = 1;
  e.interrupt.nr = vector;
  e.interrupt.soft = 0;
  STASIS_TRY(call("KVM_SET_VCPU_EVENTS", KVM_SET_VCPU_EVENTS, &e));
  kvm_mp_state running{.mp_state = KVM_MP_STATE_RUNNABLE};  // it ends a HLT
  return call("KVM_SET_MP_STATE", KVM_SET_MP_STATE, &running);
}

}  // namespace stasis::kvm
