// The engine by name, or by what the host has.
#include "machine/engine_choice.hpp"

#include <fmt/format.h>

namespace stasis {
namespace {

Result<ChosenEngine> take_kvm(std::shared_ptr<kvm::Kernel> kernel, std::string why) {
  STASIS_TRY_SET(kvm::System system, kvm::System::open(std::move(kernel)));
  CpuOffer offer = system.offer();
  return ChosenEngine{.kvm = std::move(system), .offer = std::move(offer), .why = std::move(why)};
}

ChosenEngine take_soft(std::string why) { return {.kvm = std::nullopt, .offer = soft_offer(), .why = std::move(why)}; }

}  // namespace

Result<ChosenEngine> choose_engine(const EngineOptions& options) {
  if (options.engine == "soft") return take_soft("asked for");
  const auto kernel = options.kernel ? options.kernel : kvm::host_kernel();
  if (options.engine == "kvm") return take_kvm(kernel, "asked for");
  if (options.engine != "auto")
    return fail(ErrorCode::usage, "--engine", fmt::format("'{}' is not an engine", options.engine), "write auto, soft or kvm");
  if (!options.soft_because.empty()) return take_soft(options.soft_because);
  const kvm::Choice choice = kvm::choose(*kernel);
  if (!choice.kvm) return take_soft(choice.why);
  auto taken = take_kvm(kernel, choice.why);
  if (!taken) return take_soft(taken.error().text());
  return taken;
}

}  // namespace stasis
