// The processors' records of a snapshot, read without an engine that would have to have as many.
#pragma once

#include <string>
#include <vector>

#include "cpu/contract.hpp"
#include "cpu/vcpu_state.hpp"
#include "snapshot/image.hpp"
#include "state/codec.hpp"

namespace stasis {

struct ProcessorPath;

class Processors {
 public:
  // Adds a problem for each that is damaged, missing or not of this machine.
  Processors(const snapshot::Image& image, u32 cpus, state::Problems& problems);
  // Adds a problem for each thing in the undamaged ones that this engine and host do not have.
  void check_for(const CpuOffer& here, const CpuContract& contract, state::Problems& problems) const;

 private:
  struct Vcpu {
    std::string path;
    VcpuState state;
  };
  void take(const snapshot::PartRecord& record, const ProcessorPath& path, u32 cpus, state::Problems& problems);
  std::vector<Vcpu> whole_;
};

}  // namespace stasis
