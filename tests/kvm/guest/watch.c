// watch PERIOD_MS: what the guest computes and sees while it is saved and resumed from outside.
//
// Every CPU multiplies on and on in the field of 2^61-1 (so that a far step can be checked by one power), digests a
// block again and again, and reads the clocks. The main thread prints, every period,
//   SEQ number monotonic realtime-monotonic hpet-monotonic tsc monotonic-of-tsc      (nanoseconds, but for the TSC)
// and answers each line that it reads: "ECHO line". After the line "stop" it prints what was found and ends.
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { kMaxCpus = 64, kBlockWords = 2048, kSteps = 1000 };
#define PRIME ((1ull << 61) - 1)

struct Worker {
  pthread_t thread;
  unsigned cpu;
  uint64_t steps, value;     // value = (10007 + cpu) ^ steps
  uint64_t blocks, wrong;    // block digests, and how many were not the first one's
  uint64_t digest;
  int64_t worst_gap;         // between two of its clock readings: scheduling, and pauses if they showed
  uint64_t readings;
};

static struct Worker workers[kMaxCpus];
static unsigned cpus;
static atomic_bool ending;
static _Atomic int64_t latest;  // the greatest CLOCK_MONOTONIC that any CPU has read
static _Atomic uint64_t latest_tsc;
static atomic_ulong backwards, tsc_backwards;
static pthread_mutex_t bounds_lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t least = INT64_MIN, most = INT64_MAX;  // CLOCK_REALTIME - CLOCK_MONOTONIC lies in between
static unsigned long real_jumps;

static int64_t clock_ns(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t time_stamp(void) {
  uint32_t low, high;
  __asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
  return (uint64_t)high << 32 | low;
}

static uint64_t digest_block(const uint64_t* block, double* mean) {
  uint64_t digest = 0;
  double average = 0;
  for (unsigned i = 0; i < kBlockWords; ++i) {
    digest = (digest << 7 | digest >> 57) ^ block[i] * 0x100000001B3ull;
    average += ((double)(block[i] >> 11) - average) / (double)(i + 1);
  }
  *mean = average;
  uint64_t bits;
  memcpy(&bits, &average, sizeof bits);
  return digest ^ bits;
}

/// REALTIME is read between two MONOTONIC readings; nobody sets the clock here, so their difference is one number.
static void read_clocks(struct Worker* self, int64_t* last) {
  uint64_t greatest_tsc = atomic_load(&latest_tsc);
  const uint64_t tsc = time_stamp();
  if (tsc < greatest_tsc) atomic_fetch_add(&tsc_backwards, 1);
  while (tsc > greatest_tsc && !atomic_compare_exchange_weak(&latest_tsc, &greatest_tsc, tsc)) continue;
  const int64_t seen = atomic_load(&latest), before = clock_ns(CLOCK_MONOTONIC);
  const int64_t real = clock_ns(CLOCK_REALTIME), after = clock_ns(CLOCK_MONOTONIC);
  if (before < seen || after < before) atomic_fetch_add(&backwards, 1);
  int64_t greatest = seen;
  while (after > greatest && !atomic_compare_exchange_weak(&latest, &greatest, after)) continue;
  pthread_mutex_lock(&bounds_lock);
  if (real - after > least) least = real - after;
  if (real - before < most) most = real - before;
  if (least > most + 2) {  // each reading is cut to whole nanoseconds
    ++real_jumps;
    least = real - after;
    most = real - before;
  }
  pthread_mutex_unlock(&bounds_lock);
  if (*last && before - *last > self->worst_gap) self->worst_gap = before - *last;
  *last = after;
  ++self->readings;
}

static void* work(void* argument) {
  struct Worker* self = argument;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(self->cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
  uint64_t* block = malloc(kBlockWords * 8);
  uint64_t word = 42;
  for (unsigned i = 0; i < kBlockWords; ++i) block[i] = word = word * 6364136223846793005ull + 1442695040888963407ull;
  double mean;
  self->digest = digest_block(block, &mean);
  self->value = 1;
  int64_t last = 0;
  while (!atomic_load(&ending)) {
    for (unsigned i = 0; i < kSteps; ++i) {
      const unsigned __int128 product = (unsigned __int128)self->value * (10007 + self->cpu);
      uint64_t value = (uint64_t)(product & PRIME) + (uint64_t)(product >> 61);
      self->value = value >= PRIME ? value - PRIME : value;
    }
    self->steps += kSteps;
    if (digest_block(block, &mean) != self->digest) ++self->wrong;
    ++self->blocks;
    for (unsigned i = 0; i < 16; ++i) read_clocks(self, &last);
  }
  return NULL;
}

/// The HPET's registers (IA-PC HPET 1.0a), at the address in the ACPI table; NULL where there is none that counts.
/// Needs `iomem=relaxed`. A user's port I/O would do as well, but QEMU's emulation of SVM refuses it.
static volatile uint64_t* find_hpet(void) {
  uint64_t address = 0;
  const int table = open("/sys/firmware/acpi/tables/HPET", O_RDONLY), memory = open("/dev/mem", O_RDONLY);
  volatile uint64_t* registers = NULL;
  if (table >= 0 && memory >= 0 && pread(table, &address, sizeof address, 44) == sizeof address) {
    registers = mmap(NULL, 4096, PROT_READ, MAP_SHARED, memory, (off_t)address);
    if (registers == MAP_FAILED || !(registers[2] & 1)) registers = NULL;  // ENABLE_CNF
  }
  if (table >= 0) close(table);
  if (memory >= 0) close(memory);
  return registers;
}

/// The HPET's time less CLOCK_MONOTONIC: two clocks, one kept by the monitor and one by the CPU's time stamps.
static int64_t compare_hpet(volatile uint64_t* registers) {
  const uint64_t period = registers[0] >> 32;  // femtoseconds
  int64_t best = INT64_MAX, difference = 0;
  for (int i = 0; i < 9; ++i) {
    const int64_t before = clock_ns(CLOCK_MONOTONIC);
    const uint64_t count = registers[0xF0 / 8];
    const int64_t after = clock_ns(CLOCK_MONOTONIC);
    if (after - before >= best) continue;
    best = after - before;
    difference = (int64_t)((unsigned __int128)count * period / 1000000) - (before + after) / 2;
  }
  return difference;
}

/// The TSC and CLOCK_MONOTONIC at one moment, as nearly as can be.
static uint64_t tsc_at(int64_t* monotonic) {
  int64_t best = INT64_MAX;
  uint64_t tsc = 0;
  for (int i = 0; i < 9; ++i) {
    const int64_t before = clock_ns(CLOCK_MONOTONIC);
    const uint64_t now = time_stamp();
    const int64_t after = clock_ns(CLOCK_MONOTONIC);
    if (after - before >= best) continue;
    best = after - before;
    tsc = now;
    *monotonic = (before + after) / 2;
  }
  return tsc;
}

static void say(const char* text, size_t size) {
  for (ssize_t n; size && (n = write(1, text, size)) > 0; size -= (size_t)n) text += n;
}

/// Reads what came in; whole lines are answered. Returns whether one was "stop".
static int answer(void) {
  static char line[256];
  static size_t used;
  char out[300];
  const ssize_t got = read(0, line + used, sizeof line - 1 - used);
  if (got <= 0) return 0;
  used += (size_t)got;
  for (char* end; (end = memchr(line, '\n', used)) != NULL;) {
    *end = 0;
    if (strcmp(line, "stop") == 0) return 1;
    say(out, (size_t)snprintf(out, sizeof out, "ECHO %s\n", line));
    used -= (size_t)(end + 1 - line);
    memmove(line, end + 1, used);
  }
  if (used == sizeof line - 1) used = 0;
  return 0;
}

static void report(void) {
  char out[200];
  for (unsigned i = 0; i < cpus; ++i) {
    const struct Worker* w = &workers[i];
    say(out, (size_t)snprintf(out, sizeof out, "CPU %u steps %lu value %016lx blocks %lu digest %016lx wrong %lu worst_gap %ld\n", i,
                              w->steps, w->value, w->blocks, w->digest, w->wrong, (long)w->worst_gap));
  }
  say(out, (size_t)snprintf(out, sizeof out, "CLOCKS backwards %lu tsc_backwards %lu real_jumps %lu\nWATCH END\n", atomic_load(&backwards),
                            atomic_load(&tsc_backwards), real_jumps));
}

int main(int argc, char** argv) {
  const int period = argc > 1 ? atoi(argv[1]) : 20;
  cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
  if (cpus > kMaxCpus) cpus = kMaxCpus;
  volatile uint64_t* hpet = find_hpet();
  char out[200];
  say(out, (size_t)snprintf(out, sizeof out, "WATCH cpus %u hpet %d\n", cpus, hpet != NULL));
  for (unsigned i = 0; i < cpus; ++i) {
    workers[i].cpu = i;
    if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) return puts("watch: no thread"), 1;
  }
  const struct sched_param first = {.sched_priority = 1};
  sched_setscheduler(0, SCHED_FIFO, &first);  // this thread only: it does not wait for those that compute
  struct pollfd input = {.fd = 0, .events = POLLIN};
  for (unsigned long number = 0;; ++number) {
    const int64_t apart = hpet ? compare_hpet(hpet) : 0;
    int64_t tsc_time = 0;
    const uint64_t tsc = tsc_at(&tsc_time);
    const int64_t monotonic = clock_ns(CLOCK_MONOTONIC);
    say(out, (size_t)snprintf(out, sizeof out, "SEQ %lu %ld %ld %ld %lu %ld\n", number, (long)monotonic,
                              (long)(clock_ns(CLOCK_REALTIME) - monotonic), (long)apart, tsc, (long)tsc_time));
    if (poll(&input, 1, period) > 0 && answer()) break;
  }
  atomic_store(&ending, 1);
  for (unsigned i = 0; i < cpus; ++i) pthread_join(workers[i].thread, NULL);
  report();
  return 0;
}
