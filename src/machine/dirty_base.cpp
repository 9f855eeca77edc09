// The bitmap between two saves.
#include "machine/dirty_base.hpp"

#include <algorithm>

#include "base/log.hpp"

namespace stasis {

Result<> DirtyBase::start() {
  if (tracking_) return {};
  STASIS_TRY(engine_.track_writes(true));
  tracking_ = true;
  return {};
}

void DirtyBase::restored(std::string root) {
  names_ = {std::move(root)};
  restored_ = true;
}

void DirtyBase::name_restored(std::string digest) {
  if (restored_ && !names_.empty()) names_.push_back(std::move(digest));
}

void DirtyBase::changing() {
  if (!tracking_) names_.clear();
}

// A collection that fails leaves what it has not told in the engine. It is told later, as if written after this save:
// some pages too many, none too few.
void DirtyBase::begin() {
  const auto done = tracking_ ? collect() : start();
  if (done) return;
  log::warning("{}: the next incremental save {}", done.error().text(), tracking_ ? "may write more than it must" : "compares contents");
}

Result<const std::vector<u64>*> DirtyBase::since(const std::string& name) {
  if (!tracking_ || std::ranges::find(names_, name) == names_.end()) return nullptr;
  if (const auto collected = collect(); !collected) {
    log::warning("{}: this save compares contents", collected.error().text());
    return nullptr;
  }
  return &pages_;
}

void DirtyBase::commit(std::vector<std::string> names) {
  names_.clear();
  restored_ = false;
  if (tracking_) names_ = std::move(names);
  std::ranges::fill(pages_, 0);
}

}  // namespace stasis
