// Damaged snapshots: single flipped bits, cut and spliced files, in every encoding. Each is refused in words that say where,
// or it holds the identical machine; none crashes, hangs, or takes more memory than the good file does.
//   STASIS_FLIPS, STASIS_SPLICES: how many of an encoding; STASIS_DAMAGE_SEED: the first; a failure names its seed.
#include <gtest/gtest.h>
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <new>

#include "snapshot/format.hpp"
#include "snapshot_memory.hpp"
#include "tiny_machine.hpp"

// ---- what is allocated ----------------------------------------------------------------------------------------------

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kCounts = false;  // the sanitizer has an allocator of its own
static std::atomic<std::size_t> live, peak;
#else
constexpr bool kCounts = true;
static std::atomic<std::size_t> live, peak;

void* operator new(std::size_t size) {
  void* const memory = std::malloc(size);
  if (!memory) throw std::bad_alloc();
  const std::size_t now = live += ::malloc_usable_size(memory);
  for (std::size_t before = peak; now > before && !peak.compare_exchange_weak(before, now);) {}
  return memory;
}
void operator delete(void* memory) noexcept {
  if (memory) live -= ::malloc_usable_size(memory);
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }
#endif

namespace stasis::snapshot {
namespace {

using Random = std::mt19937_64;
using testing::Ram;

u64 from_environment(const char* name, u64 otherwise) {
  const char* const text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

// The case under way, for whoever looks at a crash or a hang.
u64 current_seed;
void tell_seed(int signal) {
  char text[] = "damage case with seed 00000000000000000000 ended by a signal\n";
  u64 rest = current_seed;
  for (char* at = text + 41; at > text + 21; rest /= 10) *at-- = static_cast<char>('0' + rest % 10);
  (void)!::write(2, text, sizeof text - 1);
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

Key key() {
  std::array<u8, Key::kBytes> bytes{};
  bytes[0] = 9;
  return Key::from_bytes(bytes);
}

// Bytes that stay where they are: most of a file is looked at for one flipped bit.
class View : public Source {
 public:
  explicit View(Bytes bytes) : bytes_(bytes) {}
  u64 size() const override { return bytes_.size(); }
  Result<> read(u64 offset, MutableBytes out) const override {
    if (offset > bytes_.size() || out.size() > bytes_.size() - offset) return fail(ErrorCode::bad_file, "memory", "ends too early");
    std::ranges::copy(bytes_.subspan(offset, out.size()), out.begin());
    return {};
  }

 private:
  Bytes bytes_;
};

// The parts of a real machine, at two moments, over a few pages of RAM.
struct Machines {
  Image now, later;
  Ram ram{150, {0, 1, 63, 64, 149}};
  Ram ram_later{150, {0, 1, 63, 64, 149}};
};

const Machines& machines() {
  static const Machines made = [] {
    const tiny::Folder folder;
    Machines out;
    auto machine = tiny::boot(tiny::events());
    for (Image* image : {&out.now, &out.later}) {
      tiny::run_on(*machine, 1000);
      tiny::must(machine->save(folder / "source", nullptr));
      *image = tiny::take_apart(folder / "source").image;
      image->ram_size = out.ram.bytes.size();
      image->notes = {{"2025-01-02T03:04:05Z", "stasis 1.0.0", "a word"}};
      image->foreign = {{"working-set", 4, {1, 2, 3}}};
    }
    const auto fill = [](Ram& ram, u64 page, u8 value) {
      std::fill_n(ram.bytes.begin() + static_cast<std::ptrdiff_t>(page * kPageSize), kPageSize, value);
      ram.bits[page / 64] |= 1ull << (page % 64);
    };
    for (Ram* ram : {&out.ram, &out.ram_later})
      for (u64 page = 70; page < 75; ++page) fill(*ram, page, 0x11);  // held once, when packed
    fill(out.ram_later, 10, 0x22);
    fill(out.ram_later, 64, 0x33);
    return out;
  }();
  return made;
}

struct Kind {
  const char* name;
  Encoding encoding;
  bool sealed, child;
  friend void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }
};

class Damage : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    const Kind& kind = GetParam();
    const Machines& from = machines();
    SaveOptions options{.encoding = kind.encoding, .threads = 1};
    if (kind.sealed) options.key = key();
    if (kind.child) {
      auto opened = testing::open_memory(testing::encoded(from.now, from.ram, {.encoding = Encoding::packed, .key = options.key, .threads = 1}), {.key = key()});
      ASSERT_TRUE(opened);
      parent_ = std::make_shared<const OpenSnapshot>(std::move(*opened));
      options.parent = parent_.get();
    }
    good_ = testing::encoded(from.later, from.ram_later, options);
    other_ = testing::encoded(from.now, from.ram, options);
    const std::size_t before = live;
    peak = before;
    const auto found = content(good_);
    ASSERT_TRUE(found) << found.error().text();
    content_ = *found;
    allowed_ = peak - before + 4 * kMiB;
    for (const int signal : {SIGALRM, SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE}) ::signal(signal, tell_seed);
  }
  void TearDown() override {
    ::alarm(0);
    for (const int signal : {SIGALRM, SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE}) ::signal(signal, SIG_DFL);
  }

  Result<std::string> content(Bytes bytes) const {
    auto source = std::make_shared<View>(bytes);
    STASIS_TRY_SET(Decoded decoded, decode(*source, "test", {.key = key()}));
    return digest(OpenSnapshot{std::move(decoded), "test", {}, source, parent_});
  }

  // True: refused.
  bool is_refused(Bytes bytes) {
    ::alarm(60);
    const std::size_t before = live;
    peak = before;
    const auto found = content(bytes);
    if (kCounts) {
      EXPECT_LE(peak - before, allowed_) << "memory beyond what the good file takes";
    }
    if (found) {
      EXPECT_EQ(*found, content_) << "another machine was accepted";
      return false;
    }
    EXPECT_TRUE(says_where(found.error().text())) << found.error().text();
    return true;
  }

  static bool says_where(const std::string& text) {
    static constexpr std::string_view kPlaces[] = {"section '", "file header", "header of the section", "section headers", "commit record",
                                                   "file is incomplete", "follow the end of the snapshot", "first bytes", "is empty, not a Stasis snapshot",
                                                   "sections are not those", "says that its content is"};
    return std::ranges::any_of(kPlaces, [&](std::string_view place) { return text.find(place) != text.npos; });
  }

  // Pieces of it, or of another snapshot of the same kind, in other places.
  std::vector<u8> spliced(Random& random) const {
    std::vector<u8> out = good_;
    const auto place = [&](const std::vector<u8>& in) {
      const u64 at = random() % (in.size() + 1);
      return static_cast<std::ptrdiff_t>(random() % 2 ? at & ~u64{7} : at);
    };
    std::ptrdiff_t a = place(good_), b = place(good_);
    if (a > b) std::swap(a, b);
    switch (random() % 8) {
      case 0: out.resize(static_cast<std::size_t>(a)); break;
      case 1: out.erase(out.begin() + a, out.begin() + b); break;
      case 2: out.insert(out.begin() + b, good_.begin() + a, good_.begin() + b); break;
      case 3: out.insert(out.begin() + a, 1 + random() % 5000, static_cast<u8>(random() % 3 ? 0 : random())); break;
      case 4: std::fill(out.begin() + a, out.begin() + b, static_cast<u8>(random() % 2 ? 0 : 0xff)); break;
      case 5: std::rotate(out.begin() + a, out.begin() + (a + b) / 2, out.begin() + b); break;
      case 6: {  // the beginning of one and the end of the other
        const std::ptrdiff_t cut = std::min(static_cast<std::ptrdiff_t>(other_.size()), std::max<std::ptrdiff_t>(a, 1));
        out.resize(static_cast<std::size_t>(a));
        out.insert(out.end(), other_.begin() + cut, other_.end());
        break;
      }
      default: {
        const std::ptrdiff_t end = std::min(b, static_cast<std::ptrdiff_t>(other_.size()));
        if (a < end) std::copy(other_.begin() + a, other_.begin() + end, out.begin() + a);
        break;
      }
    }
    return out;
  }

  std::shared_ptr<const OpenSnapshot> parent_;
  std::vector<u8> good_, other_;
  std::string content_;
  std::size_t allowed_ = 0;
};

INSTANTIATE_TEST_SUITE_P(All, Damage,
                         ::testing::Values(Kind{"mapped", Encoding::mapped, false, false}, Kind{"packed", Encoding::packed, false, false},
                                           Kind{"encrypted", Encoding::packed, true, false}, Kind{"mapped_child", Encoding::mapped, false, true},
                                           Kind{"packed_child", Encoding::packed, false, true}, Kind{"encrypted_child", Encoding::packed, true, true}),
                         [](const auto& kind) { return std::string(kind.param.name); });

TEST_P(Damage, a_flipped_bit_is_refused_or_of_no_account) {
  const u64 count = from_environment("STASIS_FLIPS", 800), first = from_environment("STASIS_DAMAGE_SEED", 1);
  u64 accepted = 0;
  for (u64 seed = first; seed < first + count && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    current_seed = seed;
    Random random(seed);
    u8& byte = good_[random() % good_.size()];
    const u8 bit = static_cast<u8>(1u << random() % 8);
    byte ^= bit;
    accepted += !is_refused(good_);
    byte ^= bit;
  }
  EXPECT_LT(accepted * 100, count) << "only padding between blocks and the block that ends them are of no account";
  RecordProperty("accepted", std::to_string(accepted));
}

TEST_P(Damage, a_spliced_file_is_refused_or_the_same) {
  const u64 count = from_environment("STASIS_SPLICES", 80), first = from_environment("STASIS_DAMAGE_SEED", 1);
  u64 refused = 0;
  for (u64 seed = first; seed < first + count && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    current_seed = seed;
    Random random(seed);
    const std::vector<u8> bytes = spliced(random);
    if (bytes != other_) refused += is_refused(bytes);  // both begin alike: what has that beginning and the rest of the other is the other
  }
  EXPECT_GT(refused * 2, count);  // what is cut out or filled with itself is whole
  RecordProperty("refused", std::to_string(refused));
}

// Around operator new (zstd, aligned buffers) a limit of the process stands: beyond it an allocation fails, and with it the test.
class AddressSpace : public ::testing::Environment {
  void SetUp() override {
    if (!kCounts) return;
    std::ifstream status("/proc/self/statm");
    u64 pages = 0;
    status >> pages;
    const rlimit limit{pages * kPageSize + 1024 * kMiB, RLIM_INFINITY};
    ASSERT_EQ(::setrlimit(RLIMIT_AS, &limit), 0);
  }
};
const auto* const kAddressSpace = ::testing::AddGlobalTestEnvironment(new AddressSpace);

}  // namespace
}  // namespace stasis::snapshot
