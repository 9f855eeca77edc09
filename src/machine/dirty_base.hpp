// Which pages of RAM may differ from those of a saved file, the base: what a save against that file must write.
//
// A save: begin(), then since(base) if it wants to write only what differs, then RAM is read, and commit() once the file
// is published. A save that fails or is cancelled just does not come to commit(): bits leave the bitmap nowhere else, so
// it loses nothing. All calls with the machine held.
#pragma once

#include <string>
#include <vector>

#include "base/error.hpp"
#include "cpu/engine.hpp"
#include "memory/guest_memory.hpp"

namespace stasis {

class DirtyBase {
 public:
  DirtyBase(Engine& engine, const GuestMemory& memory) : engine_(engine), pages_((memory.pages() + 63) / 64) {}

  // Writes are followed from now on; no matter when they are already.
  Result<> start();
  // RAM is that of a file with this root, and nobody wrote to it yet.
  void restored(std::string root);
  // One more name of the file that the machine was restored from; nothing when a later save is the base.
  void name_restored(std::string digest);
  // The guest goes on, or is loaded again: where writes are not followed, the base is lost.
  void changing();

  // The instant that a save stands at. Follows writes from here on. Where the engine cannot (a warning tells), the save is
  // as good as ever, and no base for the next one.
  void begin();
  // Null: `name` is not the base's, or there is none. Valid until the next call of another member.
  Result<const std::vector<u64>*> since(const std::string& name);
  // What RAM was at begin() is in a file of these names now.
  void commit(std::vector<std::string> names);

 private:
  Result<> collect() { return engine_.collect_writes(pages_); }
  Engine& engine_;
  std::vector<u64> pages_;          // since names_ was the content
  std::vector<std::string> names_;  // of the base; none: no base
  bool tracking_ = false, restored_ = false;
};

}  // namespace stasis
