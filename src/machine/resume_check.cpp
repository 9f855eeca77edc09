// A board made for trying only, and what each engine says to the processors.
#include "machine/resume_check.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "cpu/checks.hpp"
#include "machine/board.hpp"
#include "machine/processors.hpp"
#include "machine/staging.hpp"

namespace stasis {
namespace {

using snapshot::PartRecord;
using state::LoadContext;
using state::Problems;

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

EngineVerdict verdict(std::string engine, const SavedMachine& saved, const Processors& processors) {
  EngineVerdict out{.engine = std::move(engine), .not_here = {}};
  const auto chosen = choose_engine({.engine = out.engine});
  if (!chosen) return out.not_here = chosen.error().text(), out;
  check_contract(saved.contract, chosen->offer, saved.config.cpus, out.problems);
  processors.check_for(chosen->offer, saved.contract, out.problems);
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
  for (const char* engine : {"soft", "kvm"}) out.engines.push_back(verdict(engine, saved, processors));
  return out;
}

}  // namespace stasis
