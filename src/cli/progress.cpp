// The progress line, and signals while it is shown.
#include "cli/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "cli/output.hpp"
#include "host/host_clock.hpp"
#include "host/terminal.hpp"

namespace stasis::cli {

constexpr u64 kTellEvery = 200 * kMillisecond;

Result<std::unique_ptr<Progress>> Progress::start() {
  host::prepare_signals();
  std::unique_ptr<Progress> made(new Progress);
  made->terminal_ = host::is_terminal(STDERR_FILENO);
  made->hook_.step = [raw = made.get()](u64 done, u64 total) { return raw->step(done, total); };
  STASIS_TRY_SET(made->signals_, host::SignalWatcher::start([raw = made.get()](int number) {
    if (raw->cancelled_.exchange(true) || !raw->cleaning_) ::_exit(128 + number);
  }));
  return made;
}

Progress::~Progress() {
  signals_.reset();
  if (shown_) std::fputs("\r\033[K", stderr);
}

snapshot::SaveProgress* Progress::phase(std::string doing) {
  doing_ = std::move(doing);
  last_total_ = 0;
  return &hook_;
}

bool Progress::step(u64 done, u64 total) {
  const u64 now = host::monotonic_ns();
  if (total != last_total_ || done < last_done_) began_ns_ = told_ns_ = now;  // another phase has a rate of its own
  last_total_ = total, last_done_ = done;
  if (terminal_ && now - told_ns_ >= kTellEvery) {
    fmt::print(stderr, "\r\033[K{} {}", doing_, progress_line(done, total, now - began_ns_));
    told_ns_ = now;
    shown_ = true;
  }
  return !cancelled_;
}

}  // namespace stasis::cli
