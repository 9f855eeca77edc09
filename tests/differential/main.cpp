// host_differential: random instructions on the host CPU and on the soft engine; every register and byte must agree.
#include <cstdio>
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string_view>

#include "compare.hpp"
#include "guest.hpp"
#include "native.hpp"

namespace stasis::differential {
namespace {

struct Options {
  u64 seed = 1, cases = 1'000'000, show = 20;
  std::string only;
};

class Run {
 public:
  explicit Run(const Options& options) : options_(options) {}

  int all() {
    if (!options_.only.empty() && !(long_.restrict(options_.only) | compatible_.restrict(options_.only))) return fmt::print(stderr, "no such instructions: {}\n", options_.only), 2;
    for (u64 done = 0, batch = 0; done < options_.cases; done += kBatch, ++batch) {
      const unsigned count = static_cast<unsigned>(std::min<u64>(kBatch, options_.cases - done));
      if (!run_batch(options_.seed + batch, count)) return 1;
      cases_ += count;
      if (shown_ >= options_.show) break;
    }
    fmt::print("{} cases of {} mnemonics, {} ended in a fault, {} differ\n", cases_, std::max(long_.mnemonics(), compatible_.mnemonics()), faults_, different_);
    for (const auto& [mnemonic, count] : by_mnemonic_) fmt::print("  {:<12} {}\n", mnemonic, count);
    return different_ ? 1 : 0;
  }

 private:
  bool run_batch(u64 seed, unsigned count) {
    Random random(seed);
    prepare(random, instructions(seed), count);
    if (!native_.run(count)) return fmt::print("the native child died in seed {}\n", seed), false;
    if (const std::string failure = guest_.run(count); !failure.empty()) return fmt::print("seed {}: {}\n", seed, failure), false;
    for (unsigned i = 0; i < count; ++i) check(seed, i);
    if (std::memcmp(native_.memory() + kEdgeAt, guest_.memory() + kEdgeAt, 2 * kPageSize) != 0) {
      fmt::print("seed {}: the pages that all cases share differ\n", seed);
      ++different_;
    }
    return true;
  }

  // Every third seed is 32-bit code.
  const Instructions& instructions(u64 seed) const {
    if (!long_.mnemonics()) return compatible_;
    return seed % 3 == 2 && compatible_.mnemonics() ? compatible_ : long_;
  }
  void prepare(Random& random, const Instructions& instructions, unsigned count) {
    std::memset(before_.get(), 0xcc, kCodeSize);
    interesting_memory(random, before_.get() + kDataAt, kMemorySize - kDataAt);
    for (unsigned i = 0; i < count; ++i) {
      Instruction one;
      instructions.generate(random, i, one, starts_[i]);
      std::memcpy(before_.get() + kCodeAt + i * kSlot, one.bytes, one.decoded.length);
    }
    std::memcpy(native_.memory(), before_.get(), kMemorySize);
    std::memcpy(guest_.memory(), before_.get(), kMemorySize);
    std::memcpy(native_.starts(), starts_.get(), count * sizeof(Start));
    std::memcpy(guest_.starts(), starts_.get(), count * sizeof(Start));
  }

  void check(u64 seed, unsigned i) {
    const Outcome& native = native_.outcomes()[i];
    const Outcome& soft = guest_.outcomes()[i];
    if (native.vector != 3) ++faults_;
    Instruction in;
    instructions(seed).decode(before_.get() + kCodeAt + i * kSlot, in);
    std::string difference = compare(in, starts_[i], native, soft) + compare_window(i);
    if (difference.empty()) return;
    ++different_;
    const std::string name = ZydisMnemonicGetString(in.decoded.mnemonic);
    if (by_mnemonic_[name]++ >= 3 || shown_ >= options_.show) return;
    ++shown_;
    std::string code;
    for (unsigned b = 0; b < in.decoded.length; ++b) fmt::format_to(std::back_inserter(code), "{:02x} ", before_[kCodeAt + i * kSlot + b]);
    fmt::print("--seed {} --cases {}: {}  [{}] native vector {} soft vector {}\n{}{}", seed, i + 1, instructions(seed).text(in, starts_[i].rip), code, native.vector, soft.vector,
               difference, describe(starts_[i]));
  }

  std::string compare_window(unsigned i) {
    const u64 from = kDataAt + i * kWindow;
    const u8 *native = native_.memory() + from, *soft = guest_.memory() + from, *before = before_.get() + from;
    std::string out;
    if (std::memcmp(native, soft, kWindow) == 0) return out;
    unsigned left = 4;
    for (u64 at = 0; at < kWindow && left; at += 8) {
      u64 n, s, b;
      std::memcpy(&n, native + at, 8);
      std::memcpy(&s, soft + at, 8);
      std::memcpy(&b, before + at, 8);
      if (n == s) continue;
      --left;
      fmt::format_to(std::back_inserter(out), "  [{:#x}] native {:016x}  soft {:016x}  before {:016x}\n", kData + i * kWindow + at, n, s, b);
    }
    return out;
  }

  const Options options_;
  Native native_;  // first: the child should not have the engine
  Guest guest_;
  Instructions long_{true}, compatible_{false};
  std::unique_ptr<u8[]> before_ = std::make_unique<u8[]>(kMemorySize);
  std::unique_ptr<Start[]> starts_ = std::make_unique<Start[]>(kBatch);
  u64 cases_ = 0, faults_ = 0, different_ = 0, shown_ = 0;
  std::map<std::string, u64> by_mnemonic_;
};

int usage() {
  fmt::print(stderr, "usage: host_differential [--seed N] [--cases N] [--only MNEMONIC,…] [--show N]\n");
  return 2;
}

}  // namespace
}  // namespace stasis::differential

constexpr int kSkipped = 77;

int main(int count, char** arguments) {
  using namespace stasis::differential;
  Options options;
  for (int i = 1; i < count; i += 2) {
    const std::string_view name = arguments[i];
    if (i + 1 >= count) return usage();
    const char* const value = arguments[i + 1];
    if (name == "--seed") options.seed = std::strtoull(value, nullptr, 0);
    else if (name == "--cases") options.cases = std::strtoull(value, nullptr, 0);
    else if (name == "--show") options.show = std::strtoull(value, nullptr, 0);
    else if (name == "--only") options.only = value;
    else return usage();
  }
  if (!__builtin_cpu_is("intel")) {  // the guest is shown an Intel processor (decision 0006), and vendors differ in what this test compares
    std::puts("skipped: the host CPU is not Intel's; FXSAVE's last x87 pointers, near branches with prefix 66 and others differ by vendor");
    return kSkipped;
  }
  return Run(options).all();
}
