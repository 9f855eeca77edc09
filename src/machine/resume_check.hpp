// Whether the machine in a snapshot could be resumed, found out without resuming it: no guest RAM is read, no VM is made.
#pragma once

#include <string>
#include <vector>

#include "snapshot/image.hpp"
#include "state/codec.hpp"

namespace stasis {

struct EngineVerdict {
  std::string engine;            // "soft", "kvm"
  std::string not_here;          // why this host does not have it; empty: it does
  state::Problems problems{};    // what keeps this machine from running under it
  bool can() const { return not_here.empty() && problems.empty(); }
};

struct ResumeCheck {
  state::Problems damage{};                 // no Stasis of this version can resume it: values out of range, records missing
  state::Problems unsupported{};            // parts that this Stasis does not have
  std::vector<EngineVerdict> engines{};     // empty when the damage is to what they are asked about
};
ResumeCheck check_resume(const snapshot::Image& image);

}  // namespace stasis
