// Pass one of a restore: the records of a snapshot, parsed aside and checked; nothing is changed by it.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string_view>
#include <vector>

#include "cpu/contract.hpp"
#include "machine/config.hpp"
#include "snapshot/image.hpp"
#include "state/part.hpp"

namespace stasis {

class Board;

inline constexpr std::string_view kMachinePath = "machine", kContractPath = "cpu/contract", kImagesPath = "machine/boot";
inline constexpr const char* kDamagedOrNotOurs = "the file is damaged or not ours";

// A record of the kind of S into `out`. False: the context's problems say why, and `out` must not be used.
template <class S>
bool load_of_kind(S& out, const snapshot::PartRecord& record, const state::LoadContext& context) {
  if (const auto kind = S::layout().kind; record.schema.kind != kind)
    return context.refuse(fmt::format("kind is {}, wanted is {}", record.schema.kind, kind)), false;
  return state::load_state(out, record.state, context);
}

// What a board is made from.
struct SavedMachine {
  MachineConfig config;
  CpuContract contract;
  BootImages images;
};
// With problems the result must not be used.
SavedMachine load_machine(const snapshot::Image& image, state::Problems& problems);
// The same, but kernel and initrd, which are large, are moved out of their record and not copied.
SavedMachine take_machine(snapshot::Image& image, state::Problems& problems);

// Every record against its part of the board. Nothing of the board changes but its clock, which the parts' checks look at.
// `processors`: false: the records cpu/N and cpu/N/apic are left to the caller.
std::vector<state::Part::Commit> stage_all(Board& board, const snapshot::Image& image, bool processors, state::Problems& problems);

// Of the paths cpu/N and cpu/N/apic.
struct ProcessorPath {
  u32 number = 0;
  bool apic = false;
};
std::optional<ProcessorPath> processor_path(std::string_view path);

}  // namespace stasis
