// bench: kinds of work that a guest does, each timed by the guest's own clock.
//   bench KIND [SCALE]   prints "BEGIN KIND", "END KIND guest_seconds check"; KIND "all": every kind
//   bench fill MIB [HEAP]  fills MIB of memory with incompressible data and HEAP MiB with what a program's heap looks
//                          like (pointers, small numbers, zeros), prints FILLED, sleeps. SIGUSR1: writes a word into
//                          pages here and there, one for each hundred pages of the machine's memory, and prints TOUCHED
//   bench tick MIB         fills MIB of memory with incompressible data, prints FILLED, then TICK and a number each 10 ms
//   bench exits N          reads the UART's modem status (a port) and the HPET's first register (MMIO) N times each, both of
//                          which a monitor answers itself; prints "EXITS port|mmio N seconds". Needs iomem=relaxed
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
static uint64_t random64(uint64_t* s) {  // xorshift64*
  *s ^= *s >> 12, *s ^= *s << 25, *s ^= *s >> 27;
  return *s * 0x2545F4914F6CDD1Dull;
}
static void* map(size_t bytes) {
  void* at = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) exit((puts("bench: no memory"), 1));
  return at;
}

static uint64_t sort_integers(int scale) {  // branches and memory
  enum { kCount = 200000 };
  uint64_t seed = 1, check = 0;
  uint32_t* a = map(kCount * 4);
  for (int round = 0; round < 2 * scale; ++round) {
    for (int i = 0; i < kCount; ++i) a[i] = (uint32_t)random64(&seed);
    for (int gap = kCount / 2; gap > 0; gap /= 2)
      for (int i = gap; i < kCount; ++i) {
        uint32_t v = a[i];
        int j = i;
        for (; j >= gap && a[j - gap] > v; j -= gap) a[j] = a[j - gap];
        a[j] = v;
      }
    check ^= a[kCount / 3];
  }
  return check;
}
static uint64_t hash_words(int scale) {  // ALU: shifts, adds, xors
  uint32_t a = 1, b = 2, c = 3, d = 4;
  for (int i = 0; i < 8000000 * scale; ++i) {
    a += b, d ^= a, d = d << 16 | d >> 16;
    c += d, b ^= c, b = b << 12 | b >> 20;
  }
  return (uint64_t)(a ^ c) << 32 | (b ^ d);
}
static uint64_t copy_blocks(int scale) {  // libc's memcpy
  enum { kBytes = 8 << 20 };
  char *a = map(kBytes), *b = map(kBytes);
  memset(a, 3, kBytes);
  for (int i = 0; i < 40 * scale; ++i) memcpy(i & 1 ? a : b, i & 1 ? b : a, kBytes), a[i]++;
  return (uint64_t)a[5] + (uint64_t)b[kBytes - 1];
}
static uint64_t copy_words(int scale) {  // a plain load and store loop
  enum { kWords = 1 << 20 };
  volatile uint64_t *a = map(kWords * 8), *b = map(kWords * 8);
  for (int r = 0; r < 20 * scale; ++r)
    for (int i = 0; i < kWords; ++i) b[i] = a[i] + (uint64_t)r;
  return b[kWords - 1];
}
static uint64_t bodies(int scale) {  // double precision SSE2
  double x[4] = {0, 1, 2.5, -3}, v[4] = {0.1, 0, -0.2, 0.05};
  for (int s = 0; s < 400000 * scale; ++s) {
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j)
        if (i != j) {
          double d = x[j] - x[i], q = d * d + 0.01;
          v[i] += d / (q * sqrt(q)) * 1e-4;
        }
    for (int i = 0; i < 4; ++i) x[i] += v[i] * 1e-4;
  }
  uint64_t out;
  memcpy(&out, &x[1], 8);
  return out;
}
static uint64_t interpreter(int scale) {  // indirect branches
  static const unsigned char program[] = {0, 1, 2, 3, 4, 5, 1, 6, 2, 7, 3, 0, 5, 4};
  uint64_t a = 1, b = 2, c = 3;
  const volatile unsigned char* p = program;
  for (int r = 0; r < 1000000 * scale; ++r)
    for (unsigned pc = 0; pc < sizeof program; ++pc) switch (p[pc]) {
        case 0: a += b; break;
        case 1: b ^= a << 7; break;
        case 2: c += a * 3; break;
        case 3: a ^= c >> 9; break;
        case 4: b += c; break;
        case 5: c ^= b >> 3; break;
        case 6: a -= b; break;
        default: b = b << 5 | b >> 59; break;
      }
  return a ^ b ^ c;
}
static uint64_t chase_pointers(int scale) {  // TLB misses
  enum { kSlots = 1 << 19, kStride = 64 };
  char* base = map((size_t)kSlots * kStride);
  uint32_t* order = map(kSlots * 4);
  uint64_t seed = 5;
  for (uint32_t i = 0; i < kSlots; ++i) order[i] = i;
  for (uint32_t i = kSlots - 1; i > 0; --i) {
    uint32_t j = (uint32_t)(random64(&seed) % (i + 1)), t = order[i];
    order[i] = order[j], order[j] = t;
  }
  for (uint32_t i = 0; i < kSlots; ++i) *(uint32_t*)(base + (size_t)order[i] * kStride) = order[(i + 1) % kSlots];
  uint32_t at = 0;
  for (int i = 0; i < 3000000 * scale; ++i) at = *(uint32_t*)(base + (size_t)at * kStride);
  return at;
}
static uint64_t system_calls(int scale) {
  uint64_t check = 0;
  for (int i = 0; i < 200000 * scale; ++i) check += syscall(SYS_getppid) >= 0;
  return check;
}
static uint64_t page_faults(int scale) {
  enum { kBytes = 16 << 20 };
  uint64_t check = 0;
  for (int r = 0; r < 2 * scale; ++r) {
    char* at = map(kBytes);
    madvise(at, kBytes, MADV_NOHUGEPAGE);
    for (int i = 0; i < kBytes; i += 4096) at[i] = 1, ++check;
    munmap(at, kBytes);
  }
  return check;
}
static uint64_t forks(int scale) {
  uint64_t check = 0;
  for (int i = 0; i < 100 * scale; ++i) {
    pid_t child = fork();
    if (child == 0) _exit(7);
    int status;
    waitpid(child, &status, 0);
    check += (uint64_t)WEXITSTATUS(status);
  }
  return check;
}
static uint64_t pipes(int scale) {  // context switches
  int to[2], from[2];
  char byte = 1;
  const int rounds = 5000 * scale;
  if (pipe(to) || pipe(from)) return 0;
  if (fork() == 0) {
    for (int i = 0; i < rounds; ++i)
      if (read(to[0], &byte, 1) != 1 || write(from[1], &byte, 1) != 1) _exit(1);
    _exit(0);
  }
  uint64_t check = 0;
  for (int i = 0; i < rounds; ++i) check += write(to[1], &byte, 1) == 1 && read(from[0], &byte, 1) == 1;
  wait(0);
  return check;
}

static const struct {
  const char* name;
  uint64_t (*run)(int scale);
} kKinds[] = {{"sort", sort_integers}, {"hash", hash_words}, {"memcpy", copy_blocks}, {"copy8", copy_words},
              {"double", bodies}, {"interpreter", interpreter}, {"chase", chase_pointers}, {"syscall", system_calls},
              {"fault", page_faults}, {"fork", forks}, {"pipe", pipes}};

static uint64_t heap_word(uint64_t r) {
  switch (r >> 61) {
    case 0: case 1: return 0x00007f0000000000 | (r & 0xfffff0);  // into a few MiB
    case 2: return r & 0xff;
    case 3: return r & 0xffff;
    case 4: return 0x6e6f69746f6d6f63;  // text
    default: return 0;
  }
}
static void tick(size_t mib) {
  uint64_t seed = 99, *at = map((mib << 20) + 8);
  for (size_t i = 0; i < mib << 17; ++i) at[i] = random64(&seed);
  printf("FILLED %zu MiB\n", mib);
  for (unsigned number = 0;; ++number) {
    printf("TICK %u\n", number);
    usleep(10000);
  }
}
// Linux reads one port for TIOCMGET. QEMU's emulation of SVM refuses a program's own port I/O.
static void exits(int count) {
  const int uart = open("/dev/ttyS0", O_RDWR | O_NONBLOCK), memory = open("/dev/mem", O_RDONLY);
  const volatile uint32_t* hpet = mmap(0, 4096, PROT_READ, MAP_SHARED, memory, 0xfed00000);
  int lines;
  if (hpet == MAP_FAILED) exit((perror("bench: the HPET in /dev/mem"), 1));
  double began = now();
  for (int i = 0; i < count; ++i)
    if (ioctl(uart, TIOCMGET, &lines)) exit((perror("bench: the UART"), 1));
  printf("EXITS port %d %.6f\n", count, now() - began);
  began = now();
  for (int i = 0; i < count; ++i)
    if (*hpet == ~0u) exit((puts("bench: no HPET"), 1));
  printf("EXITS mmio %d %.6f\n", count, now() - began);
}
// Sleeps, and touches when it is told to; never returns.
static void fill(size_t random_mib, size_t heap_mib) {
  const size_t words = random_mib << 17, all = words + (heap_mib << 17);
  sigset_t touch;
  sigemptyset(&touch);
  sigaddset(&touch, SIGUSR1);
  sigprocmask(SIG_BLOCK, &touch, 0);
  uint64_t seed = 99, *at = map(all * 8);
  for (size_t i = 0; i < words; ++i) at[i] = random64(&seed);
  for (size_t i = words; i < all; ++i) at[i] = heap_word(random64(&seed));
  printf("FILLED %zu MiB\n", random_mib + heap_mib);
  struct sysinfo machine;
  sysinfo(&machine);
  const size_t pages = all / 512, most = machine.totalram / 4096 * machine.mem_unit / 100;
  const size_t touched = most < pages ? most : pages;
  for (int which;;) {
    sigwait(&touch, &which);
    for (size_t i = 0; i < touched; ++i) at[i * pages / touched * 512] += 1 + random64(&seed) % 1000;
    printf("TOUCHED %zu pages\n", touched);
  }
}

int main(int argc, char** argv) {
  setvbuf(stdout, 0, _IOLBF, 0);
  const char* kind = argc > 1 ? argv[1] : "all";
  const int amount = argc > 2 ? atoi(argv[2]) : 1;
  if (!strcmp(kind, "tick")) tick((size_t)amount);
  if (!strcmp(kind, "exits")) exit((exits(amount), 0));
  if (!strcmp(kind, "fill")) fill((size_t)amount, argc > 3 ? (size_t)atoi(argv[3]) : 0);
  for (size_t i = 0; i < sizeof kKinds / sizeof *kKinds; ++i) {
    if (strcmp(kind, "all") && strcmp(kind, kKinds[i].name)) continue;
    printf("BEGIN %s\n", kKinds[i].name);
    const double began = now();
    const uint64_t check = kKinds[i].run(amount);
    printf("END %s %.6f %016llx\n", kKinds[i].name, now() - began, (unsigned long long)check);
  }
  puts("BENCH DONE");
  return 0;
}
