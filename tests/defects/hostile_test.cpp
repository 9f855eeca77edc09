// Snapshots whose digests are right and whose content is hostile: random fields of random records, within and outside
// their declared ranges. What is refused is refused in words; what is accepted must run, save and load again. Nothing
// may crash, hang, assert or upset a sanitizer.
//   STASIS_HOSTILE_CASES, STASIS_HOSTILE_SEED: how many, and from which on; a failure names its seed.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>

#include "tiny_machine.hpp"

namespace stasis::tiny {
namespace {

using state::FieldSchema;
using Random = std::mt19937_64;

u64 from_environment(const char* name, u64 otherwise) {
  const char* const text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

// The case under way, for whoever looks at a crash or a hang.
u64 current_seed;
void tell_seed(int signal) {
  char text[] = "hostile case with seed 00000000000000000000 ended by a signal\n";
  u64 rest = current_seed;
  for (char* at = text + 42; at > text + 22; rest /= 10) *at-- = static_cast<char>('0' + rest % 10);
  (void)!::write(2, text, sizeof text - 1);
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

// ---- changes ------------------------------------------------------------------------------------------------------

u64 interesting(Random& random) {
  static constexpr u64 kValues[] = {0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 0x33, 0x7f, 0x80, 0xff, 0x100, 0xfff, 0x1000, 0x7fff, 0x8000, 0xffff,
                                    0x1'0000, 0x10'0000, 0x1f'ffff, 0x1f'fffd, 0x20'0000, 0x4'0000, 0x3'0000, 0x9'0000, 0xe'0000,
                                    0x7fff'ffff, 0x8000'0000, 0xbfff'ffff, 0xc000'0000, 0xfec0'0000, 0xfed0'0000, 0xfee0'0000,
                                    0xfee0'0300, 0xffff'f000, 0xffff'ffff, 0x1'0000'0000, 0x7fff'ffff'ffff, 0x8000'0000'0000,
                                    0xffff'8000'0000'0000, 0xf'ffff'ffff'f000, 1ull << 62, 1ull << 63, ~0ull, ~0ull - 1, ~0ull - 7, ~0xfffull};
  switch (random() % 4) {
    case 0: return random() >> (random() % 64);
    case 1: return 1ull << (random() % 64);
    default: return kValues[random() % std::size(kValues)];
  }
}

u64 changed(u64 value, const FieldSchema& field, Random& random) {
  u64 out = interesting(random);
  if (random() % 3 == 0) out = value ^ 1ull << (random() % 64);
  if (random() % 4 == 0) out = value + static_cast<u64>(static_cast<i64>(random() % 5)) - 2;
  if (random() % 6 == 0) return out;  // outside, likely
  const unsigned bits = field.type.starts_with("u8") ? 8 : field.type.starts_with("u16") ? 16 : field.type.starts_with("u32") ? 32 : 64;
  if (bits < 64) out &= (1ull << bits) - 1;
  out &= field.mask;
  if (out < field.least || out > field.most) out = field.least + (field.most == ~0ull ? out : out % (field.most - field.least + 1));
  return out;
}

void change_fields(cbor::Map& record, const std::vector<FieldSchema>& fields, Random& random);

void change(cbor::Value& value, const FieldSchema& field, Random& random) {
  if (random() % 200 == 0) {  // another type altogether
    const cbor::Value others[] = {cbor::Value(), cbor::Value(true), cbor::Value("x"), cbor::Value(cbor::Map{}), cbor::Value(u64{1})};
    value = others[random() % std::size(others)];
  } else if (bool* flag = value.as<bool>()) {
    *flag = !*flag;
  } else if (u64* number = value.as<u64>()) {
    *number = changed(*number, field, random);
  } else if (auto* bytes = value.as<cbor::ByteString>(); bytes && !bytes->empty()) {
    for (unsigned i = 0; i <= random() % 4; ++i) (*bytes)[random() % bytes->size()] ^= static_cast<u8>(random());
  } else if (auto* items = value.as<cbor::Array>()) {
    if (!items->empty() && random() % 8) change((*items)[random() % items->size()], field, random);
    else if (field.type.ends_with('>') || random() % 8 == 0) items->resize(random() % 20, cbor::Value(u64{random() & 0xff}));
  } else if (auto* map = value.as<cbor::Map>()) {
    change_fields(*map, field.members, random);
  }
}

void change_fields(cbor::Map& record, const std::vector<FieldSchema>& fields, Random& random) {
  if (record.members().empty()) return;
  auto& [name, value] = record.members()[random() % record.members().size()];
  FieldSchema unknown;
  unknown.type = "u64";
  const auto known = std::ranges::find(fields, name, &FieldSchema::name);
  change(value, known == fields.end() ? unknown : *known, random);
}

void change_image(Taken& taken, Random& random) {
  auto& parts = taken.image.parts;
  const auto cpu = std::ranges::find(parts, "cpu/0", &snapshot::PartRecord::path);
  const unsigned changes = 1 + static_cast<unsigned>(random() % 4);
  for (unsigned i = 0; i < changes; ++i) {
    snapshot::PartRecord& record = random() % 20 == 0 ? taken.image.machine : random() % 2 ? *cpu : parts[random() % parts.size()];
    if (auto* map = record.state.as<cbor::Map>()) change_fields(*map, record.schema.fields, random);
  }
  if (random() % 3) return;
  // RAM is the guest's own to fill; here: its code, tables and stack.
  static constexpr u64 kPlaces[] = {0x6000, 0x3'0000, 0x3'1000, 0x4'0000, 0x4'1000, 0x4'2000, 0x4'3000, 0x9'0000 - 64, 0x10'0000};
  for (unsigned i = 0; i <= random() % 3; ++i) taken.ram[kPlaces[random() % std::size(kPlaces)] + random() % 64] = static_cast<u8>(random());
}

// ---- what was accepted --------------------------------------------------------------------------------------------

// True: it can go on.
bool go_on(Machine& machine, u64 count) {
  for (unsigned waits = 0; machine.retired() < count; ++waits) {
    const u64 before = machine.retired();
    switch (machine.run(count)) {
      case MachineEvent::none: break;
      case MachineEvent::attention:
        if (machine.retired() == before && waits > 2) return false;  // it executes nothing
        break;
      case MachineEvent::idle:
        if (machine.next_alarm() == Clock::kNever || waits > 2000) return false;
        machine.advance_idle(machine.next_alarm());
        break;
      case MachineEvent::reset:
        if (!machine.reset()) return false;
        break;
      default: return false;
    }
  }
  return true;
}

class MemoryFile {
 public:
  MemoryFile() : fd_(::memfd_create("hostile", 0)) { STASIS_ASSERT(fd_ >= 0); }
  ~MemoryFile() { ::close(fd_); }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }
  void set(Bytes bytes) {
    STASIS_ASSERT(::ftruncate(fd_, 0) == 0 && ::ftruncate(fd_, static_cast<off_t>(bytes.size())) == 0);
    STASIS_ASSERT(::pwrite(fd_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  }

 private:
  int fd_;
};

void run_hostile(Machine& machine, Random& random) {
  const u64 begin = machine.retired();
  const unsigned steps = static_cast<unsigned>(random() % 60);
  for (unsigned i = 0; i < steps; ++i)
    if (!go_on(machine, machine.retired() + 1)) break;
  if (machine.uart_can_receive(0)) machine.uart_receive(0, 'x');
  if (random() % 4 == 0) machine.press_power_button();
  for (unsigned part = 0; part < 4; ++part)
    if (!go_on(machine, begin + 5'000 * (part + 1))) return;
  if (random() % 16 == 0 && machine.reset()) go_on(machine, machine.retired() + 2000);
}

std::vector<Taken> sources() {
  const Folder folder;
  std::vector<Taken> out;
  const auto add = [&](Bytes program, std::initializer_list<u64> counts) {
    auto machine = boot(program);
    for (const u64 count : counts) {
      run_to(*machine, count);
      must(machine->save(folder / "source", nullptr));
      out.push_back(take_apart(folder / "source"));
    }
  };
  add(events(), {60, 2750, 2850, 3010});
  add(clocks(), {200});
  add(long_mode(), {60, 4500, 5150, 9000, 20'000});
  add(serial(), {30});  // the last
  return out;
}

TEST(Hostile, content_under_good_digests_is_refused_or_runs) {
  const u64 cases = from_environment("STASIS_HOSTILE_CASES", 3000), first = from_environment("STASIS_HOSTILE_SEED", 1);
  const std::vector<Taken> from = sources();
  const Folder folder;
  MemoryFile file;
  u64 accepted = 0, ran = 0;
  for (const int signal : {SIGALRM, SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE}) ::signal(signal, tell_seed);
  for (u64 seed = first; seed < first + cases && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    current_seed = seed;
    ::alarm(60);
    Random random(seed);
    Taken taken = from[random() % from.size()];
    change_image(taken, random);
    file.set(put_together(taken));
    auto machine = Machine::restore(file.path(), {});
    if (!machine) {
      EXPECT_FALSE(machine.error().message.empty());
      continue;
    }
    ++accepted;
    const std::string digest = must((*machine)->digest());
    if (seed % 8 == 0) {  // what is accepted can be saved and is the same again
      must((*machine)->save(folder / "again", nullptr));
      auto again = Machine::restore(folder / "again", {});
      ASSERT_TRUE(again) << again.error().text();
      ASSERT_EQ(must((*again)->digest()), digest);
    }
    const u64 before = (*machine)->retired();
    run_hostile(**machine, random);
    ran += (*machine)->retired() - before > 1000;
    if (seed % 8 == 0 && (*machine)->now() <= 1ull << 62) {  // so is what came of it
      must((*machine)->save(folder / "again", nullptr));
      auto again = Machine::restore(folder / "again", {});
      ASSERT_TRUE(again) << again.error().text();
    }
  }
  ::alarm(0);
  for (const int signal : {SIGALRM, SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE}) ::signal(signal, SIG_DFL);
  std::printf("%lu cases, %lu accepted, %lu ran on\n", cases, accepted, ran);
  if (cases >= 1000) {  // the changes are neither too wild nor too tame
    EXPECT_GT(accepted, cases / 5);
    EXPECT_LT(accepted, cases);
    EXPECT_GT(ran, cases / 20);
  }
}

// A page fault handler that is not there, on a stack of its own: faults without end, and no instruction retires.
TEST(Hostile, exceptions_without_end_leave_room_for_requests) {
  const Folder folder;
  auto machine = boot(long_mode());
  run_to(*machine, 20'000);
  must(machine->save(folder / "source", nullptr));
  Taken taken = take_apart(folder / "source");
  const u64 gate[2] = {0x4000'8e01'0008'0000, 0}, stack = 0x8'0000;  // at 1 GiB, which is not mapped; IST1
  std::memcpy(&taken.ram[0x3'0000 + 14 * 16], gate, sizeof gate);
  std::memcpy(&taken.ram[0x3'4000 + 36], &stack, sizeof stack);
  field_of(taken.image, "cpu/0", "rip") = cbor::Value(u64{0x4000'0000});
  write_file(folder / "source", put_together(taken));
  machine = restore(folder / "source");
  const u64 count = machine->retired();
  EXPECT_EQ(machine->run(count + 1000), MachineEvent::attention);
  EXPECT_EQ(machine->retired(), count);
  EXPECT_EQ(machine->vcpu().rip, 0x4000'0000u);
  EXPECT_TRUE(machine->digest());
}

// The sources themselves run, so that a change is what stops a machine.
TEST(Hostile, unchanged_sources_run) {
  MemoryFile file;
  const auto all = sources();
  for (std::size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE(i);
    file.set(put_together(all[i]));
    auto machine = Machine::restore(file.path(), {});
    ASSERT_TRUE(machine) << machine.error().text();
    const u64 before = (*machine)->retired();
    const bool on = go_on(**machine, before + 20'000);
    EXPECT_EQ(on, i >= 4) << (*machine)->failure();  // the first four halt for ever
    EXPECT_EQ((*machine)->failure(), "");
  }
}

}  // namespace
}  // namespace stasis::tiny
