// tcg_svm.ko: makes good, for KVM, what QEMU's emulation of SVM leaves out (seen with 7.2). It belongs to the nested
// machine of the tests only, and does nothing that shows where these things are right.
//
// 1. XSETBV in a guest is not intercepted: KVM never learns of the guest's XCR0 and puts its own old value back at the
//    next entry. We look after every exit, before the host's XCR0 is loaded, and tell KVM what the guest has set.
// 2. VMRUN and #VMEXIT change DR7 without the emulator's list of breakpoints. When a guest loads its debug registers
//    itself, that list and DR7 disagree later, and QEMU dies of it. So we let KVM emulate every access to them, as it
//    does for a guest that is being debugged: values are kept, but no breakpoint of a guest's ever fires.
#include <linux/kprobes.h>
#include <linux/kvm_host.h>
#include <linux/module.h>

static void (*update_cpuid_runtime)(struct kvm_vcpu* vcpu);

static u64 read_xcr0(void) {
  u32 low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (u64)high << 32 | low;
}

/// Called with interrupts off, on the CPU that the guest has just left; XCR0 is still the guest's.
static int after_exit(struct kprobe* probe, struct pt_regs* registers) {
  struct kvm_vcpu* vcpu = (struct kvm_vcpu*)registers->di;
  u64 now;
  if (vcpu->arch.guest_state_protected || !(vcpu->arch.cr4 & X86_CR4_OSXSAVE)) return 0;
  now = read_xcr0();
  if (now != vcpu->arch.xcr0) {
    vcpu->arch.xcr0 = now;
    update_cpuid_runtime(vcpu);  // leaf 0xD tells the size of the area by XCR0
  }
  return 0;
}

struct Access {
  struct kvm_vcpu* vcpu;
  unsigned long guest_debug;
};

static int debug_register_begins(struct kretprobe_instance* instance, struct pt_regs* registers) {
  struct Access* access = (struct Access*)instance->data;
  access->vcpu = (struct kvm_vcpu*)registers->di;
  access->guest_debug = access->vcpu->guest_debug;
  access->vcpu->guest_debug |= KVM_GUESTDBG_ENABLE;
  return 0;
}

static int debug_register_ends(struct kretprobe_instance* instance, struct pt_regs* registers) {
  struct Access* access = (struct Access*)instance->data;
  access->vcpu->guest_debug = access->guest_debug;
  return 0;
}

static struct kprobe exit_probe = {.symbol_name = "kvm_load_host_xsave_state", .pre_handler = after_exit};
static struct kretprobe debug_probe = {.kp.symbol_name = "dr_interception",
                                       .entry_handler = debug_register_begins,
                                       .handler = debug_register_ends,
                                       .data_size = sizeof(struct Access),
                                       .maxactive = 256};

static int __init start(void) {
  struct kprobe find = {.symbol_name = "kvm_update_cpuid_runtime"};
  int error = register_kprobe(&find);
  if (error) return error;
  update_cpuid_runtime = (void*)find.addr;
  unregister_kprobe(&find);
  error = register_kprobe(&exit_probe);
  return error ? error : register_kretprobe(&debug_probe);
}

module_init(start);
MODULE_DESCRIPTION("Makes good what QEMU's emulation of SVM leaves out");
MODULE_LICENSE("Dual BSD/GPL");
