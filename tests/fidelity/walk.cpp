// The fidelity walk: a Linux guest is stopped, saved and resumed at many seeded instruction counts, and must be
// indistinguishable from the machine that was never stopped.
//
// At each point, in order:
//   reference    one machine, never saved, runs there: its digest is the truth
//   live         a second machine is checkpointed there and goes on: saving must change nothing
//   chain        a fresh process of the command line resumes the file of the point before, runs to this one and
//                saves: one machine that was suspended at every point
//   again        the live machine's file is loaded and saved again: byte-identical
//
//   walk STASIS GUEST_FOLDER SCRATCH_FOLDER POINTS SEED
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "base/file_descriptor.hpp"
#include "machine/machine.hpp"

using namespace stasis;
namespace {

constexpr u64 kTypicalRun = 1'800'000'000;  // instructions; only spaces the points

[[noreturn]] void die(const std::string& text) {
  fmt::print("walk: FAILED: {}\n", text);
  std::exit(1);
}

template <class T>
T must(Result<T> result, std::string_view what) {
  if (!result) die(fmt::format("{}: {}", what, result.error().text()));
  return std::move(*result);
}

std::vector<u8> bytes_of(const std::string& path) {
  const std::string text = must(read_whole_file(path, 64 * kMiB), path);
  return {text.begin(), text.end()};
}

std::string whole(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// As `--pace fast` does: idle time is skipped. Returns false when the guest has switched itself off.
bool run_to(Machine& machine, u64 count) {
  while (machine.retired() < count) {
    switch (machine.run(count)) {
      case MachineEvent::none:
      case MachineEvent::attention: break;
      case MachineEvent::idle:
        if (machine.retired() < count) machine.advance_idle(machine.next_alarm());
        break;
      case MachineEvent::power_off: return false;
      default: die(fmt::format("the guest ended at {} instructions: {}", machine.retired(), machine.failure()));
    }
  }
  return true;
}

enum Place { kAnywhere, kUser, kHandler, kMidRep, kShadow, kHalted, kPlaces };
constexpr const char* kPlaceNames[] = {"anywhere", "user mode", "interrupt handler", "mid-REP", "interrupt shadow", "HLT"};

bool is_at(Place place, const Machine& machine, const VcpuState& before, const VcpuState& now) {
  switch (place) {
    case kAnywhere: return true;
    case kUser: return now.cpl == 3;
    case kHandler: {
      u32 in_service = 0;
      for (u32 word : machine.apic().isr) in_service |= word;
      return in_service != 0;
    }
    case kMidRep: return now.rip == before.rip && now.retired == before.retired + 1 && now.gpr[kRcx] == before.gpr[kRcx] - 1;
    case kShadow: return now.shadow != InterruptShadow::none;
    default: return now.activity == Activity::halted;
  }
}

// Moves on to an instruction boundary of the kind looked for, if one is near. `before`: the state one step earlier,
// when steps were single. False: the guest switched itself off.
bool seek(Machine& machine, Place place, VcpuState& before) {
  struct Search {
    u64 stride, tries;
  };
  static constexpr Search kSearches[kPlaces] = {{1, 1}, {3000, 1500}, {400, 12'000}, {1, 60'000}, {1, 60'000}, {20'000, 1500}};
  const auto [stride, tries] = kSearches[place];
  before = machine.vcpu();
  for (u64 attempt = 0; attempt < tries; ++attempt) {
    const VcpuState now = machine.vcpu();
    if (is_at(place, machine, before, now)) return true;
    before = now;
    if (place == kHalted) {
      const MachineEvent event = machine.run(machine.retired() + stride);  // an idle machine stays where it halted
      if (event == MachineEvent::power_off) return false;
    } else if (!run_to(machine, machine.retired() + stride)) {
      return false;
    }
  }
  return true;
}

void resume_in_a_process(const std::string& stasis, const std::string& file, u64 count) {
  const std::string stop = std::to_string(count);
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl(stasis.c_str(), stasis.c_str(), "resume", file.c_str(), "--console", "none", "--stop-at", stop.c_str(),
            "--suspend-to", file.c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 4)
    die(fmt::format("`stasis resume --stop-at {} --suspend-to` ended with wait status {:#x}, wanted exit status 4 (suspended)", count, status));
}

// A folder of this walk's own: in memory where there is room, else in `folder`. Its three files take 400 MiB.
std::string scratch_in(const std::string& folder) {
  struct statvfs memory{};
  const bool roomy = ::statvfs("/dev/shm", &memory) == 0 && memory.f_bavail * memory.f_frsize > 2 * kGiB && ::access("/dev/shm", W_OK) == 0;
  std::string name = (roomy ? "/dev/shm" : folder) + "/stasis-walk.XXXXXX";
  if (!::mkdtemp(name.data())) die("no scratch folder can be made in " + folder);
  return name;
}

std::string file_digest(const std::string& path) {
  const auto opened = must(snapshot::open(path), path);
  return must(snapshot::digest(opened), path);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) die("usage: walk STASIS GUEST_FOLDER SCRATCH_FOLDER POINTS SEED");
  const std::string stasis = argv[1], guest = argv[2], scratch = scratch_in(argv[3]);
  const unsigned points = static_cast<unsigned>(std::atoi(argv[4]));
  std::mt19937_64 random(static_cast<u64>(std::atoll(argv[5])));
  const std::string live_file = scratch + "/live.stasis", chain_file = scratch + "/chain.stasis", again_file = scratch + "/again.stasis";

  const MachineConfig config{.memory_bytes = 96 * kMiB, .start_time = 1'750'000'000};
  const BootImages images{bytes_of(guest + "/vmlinuz"), bytes_of(guest + "/initramfs.gz"), "console=ttyS0 stasis=mix:400"};
  auto reference = must(Machine::boot(config, images, {}), "boot");
  auto live = must(Machine::boot(config, images, {}), "boot");

  std::map<Place, unsigned> places;
  unsigned done = 0;
  std::string digest;
  for (; done < points; ++done) {
    // The first points are early and close together, the others spread over the whole run.
    const u64 span = done < 12 ? 1ull << (2 * done + 2) : 2 * kTypicalRun / points;
    Place place = static_cast<Place>(done % kPlaces);
    VcpuState before{};
    if (!run_to(*reference, reference->retired() + 1 + random() % span) || (done >= 12 && !seek(*reference, place, before))) break;
    const u64 count = reference->retired();
    const VcpuState vcpu = reference->vcpu();
    for (unsigned p = kUser; p < kPlaces; ++p)
      if (is_at(static_cast<Place>(p), *reference, before, vcpu)) ++places[static_cast<Place>(p)];
    digest = must(reference->digest(), "digest");

    if (!run_to(*live, count)) die("the live machine switched itself off early");
    (void)must(live->save(live_file, nullptr), "checkpoint");
    if (const std::string now = must(live->digest(), "digest"); now != digest)
      die(fmt::format("point {} ({} instructions, {}): the checkpointed machine's digest is {}, wanted {}", done, count, kPlaceNames[place], now, digest));
    if (const std::string saved = file_digest(live_file); saved != digest)
      die(fmt::format("point {} ({} instructions): the file's digest is {}, wanted {}", done, count, saved, digest));

    if (done == 0) {
      if (std::rename(live_file.c_str(), chain_file.c_str()) != 0) die("rename");
      (void)must(live->save(live_file, nullptr), "checkpoint");
    } else {
      resume_in_a_process(stasis, chain_file, count);
    }
    if (const std::string chained = file_digest(chain_file); chained != digest)
      die(fmt::format("point {} ({} instructions, {}): the resumed machine's digest is {}, wanted {}", done, count, kPlaceNames[place], chained, digest));

    auto loaded = must(Machine::restore(live_file, {}), "restore");
    (void)must(loaded->save(again_file, nullptr, &loaded->producer()), "save again");
    if (whole(live_file) != whole(again_file)) die(fmt::format("point {} ({} instructions): save, load, save differs", done, count));
    if (done % 10 == 0) fmt::print("point {:3} at {:>11} instructions, cpl {}, digest {}\n", done, count, vcpu.cpl, digest);
  }
  std::filesystem::remove_all(scratch);
  fmt::print("walk: ok: {} points to {} instructions, every digest equal; of them", done, reference->retired());
  for (const auto& [place, count] : places) fmt::print(" {} {},", kPlaceNames[place], count);
  fmt::print("\n");
  if (done < points) die(fmt::format("the guest ended after {} of {} points", done, points));
  for (unsigned p = kUser; p < kPlaces; ++p)
    if (places[static_cast<Place>(p)] == 0) die(fmt::format("no point was in {}", kPlaceNames[p]));
}
