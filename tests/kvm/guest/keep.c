// keep: holds known values in every register that a user program can hold them in, on every CPU, and looks again.
//
// Per CPU: general, x87, SSE, AVX (and AVX-512) registers with their control words, PKRU, FS and GS base; the MSRs, which
// must stay what they were; and DR0-3, which debug_registers.ko holds. Prints a line when something changed, and on
// SIGTERM what was checked:
//   KEEP cpu N rounds N wrong N msrs N changed N          KEEP debug registers looks N wrong N
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kMaxCpus = 64, kGpr = 12, kX87 = 8, kVectors = 32, kMasks = 8, kSpins = 20000 };

struct Kept {
  uint64_t gpr[kGpr];
  unsigned char x87[kX87][16];  // 10 bytes each are used
  uint32_t fcw, mxcsr;
  uint64_t masks[kMasks];
  uint32_t pkru;
  uint32_t unused[5];
  unsigned char vectors[kVectors][64];
};
_Static_assert(offsetof(struct Kept, x87) == 96 && offsetof(struct Kept, fcw) == 224 && offsetof(struct Kept, masks) == 232 &&
                   offsetof(struct Kept, pkru) == 296 && offsetof(struct Kept, vectors) == 320, "keep_registers.S has these offsets");

void keep_sse(const struct Kept* in, struct Kept* out, long spins);
void keep_avx(const struct Kept* in, struct Kept* out, long spins);
void keep_avx512(const struct Kept* in, struct Kept* out, long spins);

struct Shared {  // between the processes of one CPU; the debug registers of all are the first one's
  volatile sig_atomic_t ending;
  uint64_t rounds, wrong, msrs, changed, looks, lost;
};

static struct Shared* shared;
static int vector_bytes = 16, vectors = 16;
static int has_pku;

static uint32_t read_pkru(void) {
  uint32_t low, high;
  __asm__ volatile(".byte 0x0f,0x01,0xee" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

static void write_pkru(uint32_t value) { __asm__ volatile(".byte 0x0f,0x01,0xef" : : "a"(value), "c"(0), "d"(0)); }

static void find_features(void) {
  unsigned a, b, c, d;
  uint32_t low = 0, high;
  __cpuid(1, a, b, c, d);
  if (c & bit_OSXSAVE) __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const int avx = (c & bit_AVX) && (low & 6) == 6;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) b = c = 0;
  has_pku = (c >> 4 & 1) && (low & 0x200);  // OSPKE
  if (avx) vector_bytes = 32;
  if (avx && (b & bit_AVX512F) && (low & 0xE6) == 0xE6) vector_bytes = 64, vectors = 32;
}

static uint64_t mix(uint64_t* state) {
  uint64_t z = (*state += 0x9E3779B97F4A7C15ull);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

/// Values that are new each time; x87 ones are normal numbers, NaNs and denormals too, in turn.
static void choose(struct Kept* in, uint64_t* seed) {
  memset(in, 0, sizeof *in);
  for (int i = 0; i < kGpr; ++i) in->gpr[i] = mix(seed);
  for (int i = 0; i < kX87; ++i) {
    const uint64_t mantissa = mix(seed);
    const uint16_t exponents[] = {0x3FFF, 0xC123, 0x7FFF, 0x0001};
    const uint64_t whole = mantissa | 1ull << 63 | (i % 4 == 2 ? 1ull << 62 : 0);  // quiet NaN
    memcpy(in->x87[i], &whole, 8);
    memcpy(in->x87[i] + 8, &exponents[i % 4], 2);
  }
  const uint32_t words[] = {0x037F, 0x0F7F, 0x077F, 0x0B7F};  // rounding modes; all exceptions masked
  in->fcw = words[*seed >> 8 & 3];
  in->mxcsr = 0x1F80 | (uint32_t)(*seed >> 10 & 3) << 13 | (uint32_t)(*seed >> 12 & 1) << 15;
  for (int i = 0; vector_bytes == 64 && i < kMasks; ++i) in->masks[i] = mix(seed) & 0xFFFF;
  for (int i = 0; i < vectors; ++i)
    for (int k = 0; k < vector_bytes; k += 8) {
      const uint64_t word = mix(seed);
      memcpy(in->vectors[i] + k, &word, 8);
    }
}

static void say_difference(unsigned cpu, const struct Kept* in, const struct Kept* out) {
  const unsigned char *a = (const void*)in, *b = (const void*)out;
  size_t at = 0;
  while (at < sizeof *in && a[at] == b[at]) ++at;
  char line[160];
  const int size = snprintf(line, sizeof line, "KEEP WRONG cpu %u byte %zu of the registers: %02x, was %02x\n", cpu, at, b[at], a[at]);
  (void)!write(1, line, (size_t)size);
}

static void pin(unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

/// FS is the C library's; GS is ours, and both are looked through, not only read.
static int bases_hold(const uint64_t* gs_word, uint64_t thread) {
  uint64_t seen, self;
  __asm__ volatile("mov %%gs:0, %0" : "=r"(seen));
  __asm__ volatile("mov %%fs:0, %0" : "=r"(self));
  return seen == *gs_word && self == thread;
}

static void keep_registers(unsigned cpu, struct Shared* mine) {
  pin(cpu);
  uint64_t seed = 1000 + cpu, thread;
  static uint64_t gs_word;
  gs_word = 0x6753426173650000ull + cpu;
  syscall(SYS_arch_prctl, ARCH_SET_GS, &gs_word);
  __asm__ volatile("mov %%fs:0, %0" : "=r"(thread));
  struct Kept in, out;
  while (!mine->ending) {
    choose(&in, &seed);
    if (has_pku) write_pkru(in.pkru = (uint32_t)seed << 2);  // key 0 stays open
    memset(&out, 0, sizeof out);
    (vector_bytes == 64 ? keep_avx512 : vector_bytes == 32 ? keep_avx : keep_sse)(&in, &out, kSpins);
    if (has_pku) out.pkru = read_pkru();
    if (memcmp(&in, &out, sizeof in) != 0 || !bases_hold(&gs_word, thread)) {
      ++mine->wrong;
      say_difference(cpu, &in, &out);
    }
    ++mine->rounds;
  }
  _exit(0);
}

/// The module's count of debug registers that lost their value, on all CPUs.
static void watch_debug_registers(struct Shared* mine) {
  char text[16], line[80];
  while (!mine->ending) {
    usleep(100000);
    const int file = open("/sys/module/debug_registers/parameters/wrong", O_RDONLY);
    const ssize_t size = file < 0 ? 0 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    if (size <= 0) continue;
    text[size] = 0;
    ++mine->looks;
    const int lost = atoi(text);
    if (lost == 0) continue;
    if (mine->lost == 0) (void)!write(1, line, (size_t)snprintf(line, sizeof line, "KEEP WRONG %d of DR0-3 of all CPUs\n", lost));
    mine->lost += (uint64_t)lost;
  }
  _exit(0);
}

/// MSRs that nothing changes once Linux runs. Variable MTRR 7 gets a value of ours (not valid, so without effect).
static const uint32_t kMsrs[] = {
    0x1B, 0x3B, 0x174, 0x175, 0x176, 0x1A0, 0x1D9, 0x200, 0x201, 0x202, 0x203, 0x20E, 0x20F, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26A,
    0x26B, 0x26C, 0x26D, 0x26E, 0x26F, 0x277, 0x2FF, 0x17A, 0x17B, 0x400, 0x404, 0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083,
    0xC0000084, 0xC0000103, 0xC0010015, 0xC0010117, 0xC001011F, 0xC0011029, 0x4B564D00, 0x4B564D01, 0x4B564D02, 0x4B564D03,
    0x4B564D04, 0x4B564D05, 0x8B, 0x34, 0x9E, 0xCE, 0x140};
enum { kMsrCount = sizeof kMsrs / sizeof *kMsrs };

static void watch_msrs(unsigned cpu, struct Shared* mine) {
  char path[40], line[120];
  snprintf(path, sizeof path, "/dev/cpu/%u/msr", cpu);
  const int file = open(path, O_RDWR);
  if (file < 0) _exit(0);
  const uint64_t base = 0x12345006, mask = 0x7FFFF000;
  (void)!pwrite(file, &base, 8, 0x20E);
  (void)!pwrite(file, &mask, 8, 0x20F);
  uint64_t first[kMsrCount], now;
  int known[kMsrCount];
  for (int i = 0; i < kMsrCount; ++i) mine->msrs += known[i] = pread(file, &first[i], 8, kMsrs[i]) == 8;
  while (!mine->ending) {
    usleep(300000);
    for (int i = 0; i < kMsrCount; ++i) {
      if (!known[i] || (pread(file, &now, 8, kMsrs[i]) == 8 && now == first[i])) continue;
      ++mine->changed;
      (void)!write(1, line, (size_t)snprintf(line, sizeof line, "KEEP WRONG cpu %u MSR %x is %lx, was %lx\n", cpu, kMsrs[i], now, first[i]));
      known[i] = 0;
    }
  }
  _exit(0);
}

static void end(int number) {
  (void)number;
  for (unsigned i = 0; i < kMaxCpus; ++i) shared[i].ending = 1;
}

int main(void) {
  find_features();
  const unsigned cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
  shared = mmap(NULL, kMaxCpus * sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  printf("KEEP cpus %u vectors %d of %d bytes pkru %d\n", cpus, vectors, vector_bytes, has_pku);
  fflush(stdout);
  for (unsigned i = 0; i < cpus && i < kMaxCpus; ++i) {
    if (fork() == 0) keep_registers(i, &shared[i]);
    if (fork() == 0) watch_msrs(i, &shared[i]);
  }
  if (fork() == 0) watch_debug_registers(&shared[0]);
  signal(SIGTERM, end);
  while (wait(NULL) > 0 || errno == EINTR) continue;
  for (unsigned i = 0; i < cpus && i < kMaxCpus; ++i) {
    const struct Shared* s = &shared[i];
    printf("KEEP cpu %u rounds %lu wrong %lu msrs %lu changed %lu\n", i, s->rounds, s->wrong, s->msrs, s->changed);
  }
  printf("KEEP debug registers looks %lu wrong %lu\n", shared[0].looks, shared[0].lost);
  puts("KEEP END");
  return 0;
}
