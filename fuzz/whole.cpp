// Fuzz: a whole file, as it comes and with its digests made good. What is accepted can be saved again, in every encoding,
// and is the same machine.
#include "machines.hpp"
#include "repair.hpp"
#include "target.hpp"

using namespace stasis;
using namespace stasis::snapshot;

namespace {

void try_file(const std::vector<u8>& bytes) {
  const auto opened = testing::open_memory(bytes, {.key = fuzz::key()});
  if (!opened) return FUZZ_LAW(!opened.error().message.empty());
  // Large ones are read a chunk at a time, as the other targets do; the RAM of children is with their parents.
  if (opened->image.ram_size > 64 * kMiB || opened->parent_link) return;
  const auto content = digest(*opened);
  const auto ram = testing::ram_of(*opened);
  if (!content) return;
  FUZZ_LAW(ram);
  const std::vector<u64> all(opened->nonzero.size(), ~0ull);
  for (const SaveOptions& options : {SaveOptions{.threads = 1}, SaveOptions{.encoding = Encoding::packed, .threads = 1}}) {
    testing::MemorySink sink;
    const auto report = encode(sink, opened->image, {ram->data(), ram->size(), all}, nullptr, options);
    FUZZ_LAW(report && report->digest == *content);
    const auto again = testing::open_memory(sink.bytes);
    FUZZ_LAW(again && again->image.parts == opened->image.parts && again->image.notes == opened->image.notes);
    FUZZ_LAW(*digest(*again) == *content);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  std::vector<u8> bytes(data, data + size);
  try_file(bytes);
  fuzz::repair(bytes);
  try_file(bytes);
  return 0;
}
