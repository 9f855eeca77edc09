// What the encoder's parts write through: the sink, with a position, holes, progress and cancelling.
#pragma once

#include "base/error.hpp"
#include "snapshot/image.hpp"
#include "snapshot/sink.hpp"

namespace stasis::snapshot {

class Output {
 public:
  Output(Sink& sink, SaveProgress* progress) : sink_(sink), progress_(progress) {}

  u64 position() const { return position_; }
  u64 stored() const { return stored_; }  // bytes that are not holes

  Result<> write(Bytes bytes) {
    position_ += bytes.size();
    stored_ += bytes.size();
    return sink_.write(bytes);
  }

  Result<> pad_to(u64 offset) {
    static constexpr u8 kZeros[64] = {};
    const u64 gap = offset - position_;
    if (gap < sizeof kZeros) return gap ? write({kZeros, gap}) : Result<>{};
    position_ = offset;
    return sink_.skip_hole(gap);
  }

  // Progress: `total` is what step() will have been told of in the end, about.
  void expect(u64 total) { total_ = total; }
  Result<> step(u64 bytes) {
    constexpr u64 kStep = 4 * kMiB;
    done_ += bytes;
    if (done_ - told_ < kStep) return {};
    return tell(done_);
  }
  Result<> finish() { return tell(total_); }
  Result<> tell(u64 done) {
    told_ = done;
    if (!progress_ || !progress_->step || progress_->step(std::min(done, total_), total_)) return {};
    return fail(ErrorCode::cancelled, "snapshot", "saving was cancelled");
  }

 private:
  Sink& sink_;
  SaveProgress* progress_;
  u64 position_ = 0, stored_ = 0, total_ = 0, done_ = 0, told_ = 0;
};

}  // namespace stasis::snapshot
