// xcr0.ko: makes good what QEMU's emulation of SVM leaves out. XSETBV in a guest is not intercepted there (seen with
// 7.2), so KVM never learns of the guest's XCR0 and puts its own old value back at the next entry. This module
// looks after every exit, before the host's XCR0 is loaded, and tells KVM what the guest has set.
// It belongs to the nested machine of the tests only, and does nothing where XSETBV is intercepted.
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

static struct kprobe exit_probe = {.symbol_name = "kvm_load_host_xsave_state", .pre_handler = after_exit};

static int __init start(void) {
  struct kprobe find = {.symbol_name = "kvm_update_cpuid_runtime"};
  int error = register_kprobe(&find);
  if (error) return error;
  update_cpuid_runtime = (void*)find.addr;
  unregister_kprobe(&find);
  return register_kprobe(&exit_probe);
}

module_init(start);
MODULE_DESCRIPTION("Tells KVM of XCR0 where the emulated CPU does not intercept XSETBV");
MODULE_LICENSE("Dual BSD/GPL");
