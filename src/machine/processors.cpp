// Which records are processors', and what engines say to them.
#include "machine/processors.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "cpu/checks.hpp"
#include "cpu/local_apic.hpp"
#include "machine/staging.hpp"

namespace stasis {
namespace {

using snapshot::PartRecord;
using state::LoadContext;
using state::Problems;

bool tell(const std::string& wrong, const LoadContext& context) {
  if (!wrong.empty()) context.refuse(wrong);
  return wrong.empty();
}

}  // namespace

Processors::Processors(const snapshot::Image& image, u32 cpus, Problems& problems) {
  for (const PartRecord& record : image.parts)
    if (const auto path = processor_path(record.path)) take(record, *path, cpus, problems);
  for (u32 number = 0; number < cpus; ++number)
    for (const char* suffix : {"", "/apic"})
      if (const std::string path = fmt::format("cpu/{}{}", number, suffix); std::ranges::find(image.parts, path, &PartRecord::path) == image.parts.end())
        problems.push_back({ErrorCode::bad_file, path, "its record is missing", kDamagedOrNotOurs});
}

void Processors::take(const PartRecord& record, const ProcessorPath& path, u32 cpus, Problems& problems) {
  const LoadContext context{.object = record.path, .version = record.schema.version, .problems = problems, .schema = &record.schema};
  if (path.number >= cpus) return context.refuse(fmt::format("is of processor {}, the machine has {}", path.number, cpus));
  if (path.apic) {
    LocalApicState state;
    if (load_of_kind(state, record, context)) tell(LocalApic::check_state(state, path.number), context);
    return;
  }
  Vcpu vcpu{.path = record.path, .state = {}};
  if (load_of_kind(vcpu.state, record, context) && tell(check_vcpu(vcpu.state), context)) whole_.push_back(std::move(vcpu));
}

void Processors::check_for(const CpuOffer& here, const CpuContract& contract, Problems& problems) const {
  for (const auto& [path, state] : whole_) {
    if (here.engine == "kvm") check_for_kvm(state, contract, here, path, problems);
    else if (std::string wrong = check_for_soft(state, contract); !wrong.empty())
      problems.push_back({ErrorCode::unsupported, path, std::move(wrong), "resume it with --engine kvm"});
  }
}

}  // namespace stasis
