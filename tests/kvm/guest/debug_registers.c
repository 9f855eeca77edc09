// debug_registers.ko: gives DR0-3 of every CPU values of their own when it is loaded. Its parameter `wrong`, when read,
// tells how many of them have another value now. No breakpoint is on (DR7), so nothing else uses these registers.
#include <linux/atomic.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/processor.h>
#include <linux/smp.h>

#include <asm/debugreg.h>

enum { kRegisters = 4 };

static unsigned long value_of(int number) { return 0x7a5b00000000ul + ((unsigned long)smp_processor_id() << 16) + ((unsigned long)number << 8) + 0x11; }

static void fill(void* unused) {
  set_debugreg(value_of(0), 0);
  set_debugreg(value_of(1), 1);
  set_debugreg(value_of(2), 2);
  set_debugreg(value_of(3), 3);
}

static void look(void* argument) {
  unsigned long seen[kRegisters];
  int i;
  get_debugreg(seen[0], 0);
  get_debugreg(seen[1], 1);
  get_debugreg(seen[2], 2);
  get_debugreg(seen[3], 3);
  for (i = 0; i < kRegisters; ++i)
    if (seen[i] != value_of(i)) atomic_inc(argument);
}

static int tell_wrong(char* text, const struct kernel_param* parameter) {
  atomic_t wrong = ATOMIC_INIT(0);
  on_each_cpu(look, &wrong, 1);
  return sprintf(text, "%d\n", atomic_read(&wrong));
}

static const struct kernel_param_ops wrong_operations = {.get = tell_wrong};
module_param_cb(wrong, &wrong_operations, NULL, 0444);

static int __init start(void) {
  on_each_cpu(fill, NULL, 1);
  return 0;
}

static void __exit end(void) {}

module_init(start);
module_exit(end);
MODULE_DESCRIPTION("Holds known values in the debug registers");
MODULE_LICENSE("Dual BSD/GPL");
