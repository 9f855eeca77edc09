// The record kinds of a board with every device.
#include "kinds.hpp"

#include <algorithm>

#include "cpu/checks.hpp"

namespace stasis::schema {
namespace {

template <class T>
T must(Result<T> result) {
  STASIS_ASSERT(result);
  return std::move(*result);
}

}  // namespace

template <class S>
void Kinds::add_struct(const S& sample, std::function<std::string(const S&)> check) {
  kinds_.push_back({state::schema_of<S>(), state::save_record(sample),
                    [check](const cbor::Value& record, const state::LoadContext& context) -> std::optional<cbor::Value> {
                      S loaded{};
                      if (!state::load_state(loaded, record, context)) return {};
                      if (const std::string wrong = check ? check(loaded) : ""; !wrong.empty()) return context.refuse(wrong), std::nullopt;
                      return state::save_record(loaded);
                    }});
}

void Kinds::add_part(state::Part& part) {
  const state::Schema schema = part.schema();
  if (std::ranges::any_of(kinds_, [&](const Kind& kind) { return kind.schema.kind == schema.kind; })) return;
  kinds_.push_back({schema, part.capture(),
                    [&part](const cbor::Value& record, const state::LoadContext& context) -> std::optional<cbor::Value> {
                      const auto commit = part.stage(record, context);
                      if (!commit) return {};
                      commit();
                      return part.capture();
                    }});
}

Kinds::Kinds() {
  const MachineConfig config{.memory_bytes = 2 * kMiB, .debug_console = true, .debug_exit = true};
  board_ = must(Board::make(config, default_cpu_contract(1), {}, must(GuestMemory::create(config.memory_bytes)), {}, {}));
  add_struct<MachineConfig>({.memory_bytes = 3 * kGiB, .cpus = 4, .debug_console = true, .debug_exit = true, .start_time = 1'700'000'000});
  add_struct<BootImages>({.kernel = {0x7f, 'E', 'L', 'F'}, .initrd = {1, 2, 3}, .cmdline = "console=ttyS0 quiet"});
  add_struct<CpuContract>(default_cpu_contract(1));
  // A vCPU's part also compares with this board's contract, which is none of the record's business.
  add_struct<VcpuState>({.rip = 0x1000}, [](const VcpuState& vcpu) { return check_vcpu(vcpu); });
  add_struct<GuestClockState>({.now_ns = 1'234'567'890'123});
  add_struct<PvclockState>({.offset_ns = 0 - 5ull});
  for (const PlacedPart& placed : board_->parts()) add_part(*placed.part);
  std::ranges::sort(kinds_, {}, [](const Kind& kind) { return kind.schema.kind; });
}

}  // namespace stasis::schema
