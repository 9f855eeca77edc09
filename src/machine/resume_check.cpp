// A board made for trying only, and what each engine says to the processors.
#include "machine/resume_check.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "cpu/checks.hpp"
#include "machine/board.hpp"
#include "machine/staging.hpp"

namespace stasis {
namespace {

using snapshot::PartRecord;
using state::LoadContext;
using state::Problems;

// The records of processors, without an engine that would have to have as many.
class Processors {
 public:
  Processors(const snapshot::Image& image, u32 cpus, Problems& problems) : problems_(problems) {
    for (const PartRecord& record : image.parts)
      if (const auto path = processor_path(record.path)) take(record, *path, cpus);
    for (u32 number = 0; number < cpus; ++number)
      for (const char* suffix : {"", "/apic"})
        if (const std::string path = fmt::format("cpu/{}{}", number, suffix); std::ranges::find(image.parts, path, &PartRecord::path) == image.parts.end())
          problems.push_back({ErrorCode::bad_file, path, "its record is missing", kDamagedOrNotOurs});
  }
  struct Vcpu {
    std::string path;
    VcpuState state;
  };
  const std::vector<Vcpu>& whole() const { return vcpus_; }

 private:
  void take(const PartRecord& record, const ProcessorPath& path, u32 cpus) {
    const LoadContext context{.object = record.path, .version = record.schema.version, .problems = problems_, .schema = &record.schema};
    if (path.number >= cpus) return context.refuse(fmt::format("is of processor {}, the machine has {}", path.number, cpus));
    if (path.apic) {
      LocalApicState state;
      if (loads(state, record, context)) tell(LocalApic::check_state(state, path.number), context);
      return;
    }
    Vcpu vcpu{.path = record.path, .state = {}};
    if (!loads(vcpu.state, record, context) || !tell(check_vcpu(vcpu.state), context)) return;
    vcpus_.push_back(std::move(vcpu));
  }

  template <class S>
  bool loads(S& out, const PartRecord& record, const LoadContext& context) {
    if (const auto kind = S::layout().kind; record.schema.kind != kind)
      return context.refuse(fmt::format("kind is {}, wanted is {}", record.schema.kind, kind)), false;
    return state::load_state(out, record.state, context);
  }

  static bool tell(const std::string& wrong, const LoadContext& context) {
    if (!wrong.empty()) context.refuse(wrong);
    return wrong.empty();
  }

  Problems& problems_;
  std::vector<Vcpu> vcpus_;
};

// Devices know nothing of processors: a board with one, of the default model, checks them as well as any.
Result<> stage_devices(MachineConfig config, const CpuContract& contract, const snapshot::Image& image, Problems& problems) {
  config.cpus = 1;
  CpuContract one = default_cpu_contract(1);
  one.tsc_hz = contract.tsc_hz;
  STASIS_TRY_SET(GuestMemory memory, GuestMemory::create(config.memory_bytes));
  STASIS_TRY_SET(const auto board, Board::make(config, std::move(one), {}, std::move(memory), {}, {}));
  (void)stage_all(*board, image, false, problems);
  return {};
}

EngineVerdict soft_verdict(const SavedMachine& saved, const Processors& processors) {
  EngineVerdict out{.engine = "soft", .not_here = {}};
  check_contract(saved.contract, soft_offer(), saved.config.cpus, out.problems);
  for (const auto& [path, state] : processors.whole())
    if (std::string wrong = check_for_soft(state, saved.contract); !wrong.empty())
      out.problems.push_back({ErrorCode::unsupported, path, std::move(wrong), "resume it with KVM"});
  return out;
}

EngineVerdict kvm_verdict(const SavedMachine& saved) {
  EngineVerdict out{.engine = "kvm", .not_here = {}};
  const auto chosen = choose_engine({.engine = "kvm"});
  if (!chosen) out.not_here = chosen.error().text();
  else check_contract(saved.contract, chosen->offer, saved.config.cpus, out.problems);
  return out;
}

}  // namespace

ResumeCheck check_resume(const snapshot::Image& image) {
  ResumeCheck out;
  const SavedMachine saved = load_machine(image, out.damage);
  if (!out.damage.empty()) return out;
  Problems staged;
  const Processors processors(image, saved.config.cpus, staged);
  Problems devices;  // apart: a damaged processor must not keep the clock from being set for the devices' checks
  if (const auto tried = stage_devices(saved.config, saved.contract, image, devices); !tried) devices.push_back(tried.error());
  std::ranges::move(devices, std::back_inserter(staged));
  for (Error& problem : staged) (problem.code == ErrorCode::bad_file ? out.damage : out.unsupported).push_back(std::move(problem));
  out.engines.push_back(soft_verdict(saved, processors));
  out.engines.push_back(kvm_verdict(saved));
  return out;
}

}  // namespace stasis
