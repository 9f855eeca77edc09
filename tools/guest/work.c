// work: the guest's long computation. Fills a buffer with a pseudo-random stream and digests it again and
// again, printing each step, so that a stop, a lost interrupt or a wrong bit shows.
//   work MIB STEPS
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static uint64_t mix(uint64_t* state) {
  uint64_t z = (*state += 0x9E3779B97F4A7C15ull);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

int main(int argc, char** argv) {
  const size_t mib = argc > 1 ? strtoul(argv[1], 0, 0) : 16;
  const int steps = argc > 2 ? atoi(argv[2]) : 20;
  const size_t words = mib << 17;
  uint64_t* buffer = mmap(0, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (buffer == MAP_FAILED) return puts("work: no memory"), 1;
  uint64_t seed = 42, digest = 0;
  double mean = 0;
  for (size_t i = 0; i < words; ++i) buffer[i] = mix(&seed);
  for (int step = 1; step <= steps; ++step) {
    for (size_t i = 0; i < words; ++i) {
      digest = (digest << 7 | digest >> 57) ^ buffer[i] * 0x100000001B3ull;
      buffer[i] += digest;
    }
    for (size_t i = 0; i < words; i += 64) mean += ((double)(buffer[i] >> 11) - mean) / (double)(i / 64 + 1);
    printf("step %d of %d digest %016llx mean %.17g\n", step, steps, (unsigned long long)digest, mean);
    fflush(stdout);
  }
  printf("RESULT %016llx %.17g\n", (unsigned long long)digest, mean);
  return 0;
}
