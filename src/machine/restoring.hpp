// A board out of a snapshot, pass one: everything is parsed aside and checked, and every problem is told.
#pragma once

#include "machine/board.hpp"
#include "machine/engine_choice.hpp"
#include "snapshot/reader.hpp"

namespace stasis {

inline constexpr std::string_view kMachinePath = "machine", kContractPath = "cpu/contract", kImagesPath = "machine/boot";

// What a board is made of.
struct SavedBoard {
  MachineConfig config;
  CpuContract contract;
  BootImages images;  // empty when the file was opened without bulk
};
// Takes the images out of `saved`. What the contract needs and `offer` lacks is a problem too, each thing by name.
SavedBoard parse_board(snapshot::OpenSnapshot& saved, const CpuOffer& offer, state::Problems& problems);

// A mapped file is the RAM, and pages come in as they are touched; what is packed or in a child is brought in now.
Result<GuestMemory> memory_of(const snapshot::OpenSnapshot& saved);

// Every record is parsed aside and checked; nothing of the board changes but its clock, which the parts' checks look at.
std::vector<state::Part::Commit> stage_all(Board& board, const snapshot::Image& image, state::Problems& problems);

// One error for all problems; each names its object, field, value and what is allowed.
std::unexpected<Error> refuse_restore(const std::string& path, const state::Problems& problems);

// Everything that keeps a snapshot from being resumed here; empty: it would be. Runs nothing and reads no RAM.
state::Problems resume_problems(snapshot::OpenSnapshot& saved, const EngineOptions& options);

}  // namespace stasis
