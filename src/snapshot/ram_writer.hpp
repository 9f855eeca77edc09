// The RAM of a snapshot on its way out: what is stored, in which encoding, and the index of it.
#pragma once

#include <memory>

#include "snapshot/output.hpp"
#include "snapshot/ram_hash.hpp"
#include "snapshot/ram_index.hpp"
#include "snapshot/writer.hpp"

namespace stasis::snapshot {

class RamWriter {
 public:
  // `cipher`: null: clear. All outlive it.
  RamWriter(const RamSource& ram, const SaveOptions& options, const Cipher* cipher);
  ~RamWriter();

  // Pages that are looked at: an upper bound of what run() reports as progress, and of what it stores.
  u64 bytes_at_most() const;
  // Writes the body of the region at the output's position, on this thread, while others read and pack what comes next.
  Result<> run(Output& out);
  // Complete after run(), but for the content digest of the machine.
  RamIndex& index() { return index_; }

 private:
  struct Work;
  class Duplicates;
  class Packer;
  u64 maybe_nonzero(u64 chunk) const;
  bool unchanged(u64 chunk) const;
  void take(u64 batch, std::vector<Work>& out) const;
  void look_at(Work& work, unsigned worker);
  Result<u64> as_in_parent(const Work& work, const ChunkRecord& before, unsigned worker);
  void find_duplicates(Work& work);
  void pack(Work& work, unsigned worker);
  Result<> write(Output& out, std::vector<Work>& batch);
  Result<> write_mapped(Output& out, const Work& work);
  Result<> write_packed(Output& out, Work& work);
  Result<> flush_run(Output& out);

  const RamSource& ram_;
  const SaveOptions& options_;
  const unsigned threads_;
  RamIndex index_;
  std::unique_ptr<Duplicates> duplicates_;
  std::vector<std::unique_ptr<Packer>> packers_;  // one for each worker
  u64 region_ = 0;                                // file offset of page 0 of a mapped region
  u64 run_begin_ = 0, run_end_ = 0;               // mapped: RAM offsets of what is to be written next
};

}  // namespace stasis::snapshot
