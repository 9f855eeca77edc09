// Fuzz: the table of sections: a frame with good digests and any lengths, names, flags and orders, read as a file and as a
// stream. Both must see the same machine.
#include <algorithm>

#include "repair.hpp"
#include "snapshot_memory.hpp"
#include "target.hpp"

using namespace stasis;
using namespace stasis::snapshot;

namespace {

// As a pipe gives it: the size is not known, and what has not come yet must not be asked for twice.
class Arriving : public testing::MemorySource {
 public:
  using MemorySource::MemorySource;
  bool arriving() const override { return true; }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  std::vector<u8> bytes(data, data + size);
  fuzz::repair(bytes);
  const std::string object = "fuzz";
  const testing::MemorySource file(bytes);
  const Arriving stream(bytes);
  (void)identify(file, object);
  const auto whole = decode(file, object);
  const auto arrived = decode(stream, object);
  if (!whole) FUZZ_LAW(!whole.error().message.empty());
  if (!arrived) FUZZ_LAW(!arrived.error().message.empty());
  if (!whole || !arrived || arrived->file_bytes != bytes.size()) return 0;
  FUZZ_LAW(whole->root == arrived->root && whole->file_bytes == arrived->file_bytes);
  FUZZ_LAW(whole->image.parts == arrived->image.parts && whole->image.machine == arrived->image.machine);
  FUZZ_LAW(whole->ram.content == arrived->ram.content);
  FUZZ_LAW(std::ranges::equal(whole->sections, arrived->sections, {}, &SectionInfo::offset, &SectionInfo::offset));
  return 0;
}
