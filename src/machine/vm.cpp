// The machine's thread: requests, console input, pace, endings.
#include "machine/vm.hpp"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <chrono>

#include "host/host_clock.hpp"

namespace stasis {
namespace {

constexpr std::size_t kMostInput = 64 * kKiB;  // a guest that does not read must not fill the host's memory
constexpr u64 kSlice = 2'000'000;  // instructions between looks at the outside; kick() cuts it short
constexpr u64 kTick = kSecond, kTickWithInput = kMillisecond;  // the same for an engine that runs by itself, in ns
constexpr u64 kSliceWithInput = 100'000;  // while input waits: 16 bytes each, about what a real line carries

std::unexpected<Error> has_ended(const std::string& name) {
  return fail(ErrorCode::state, "machine " + name, "has ended", "see 'stasis list' for the machines that run");
}

}  // namespace

std::string_view name_of(VmState state) {
  static constexpr std::string_view kNames[] = {"running", "paused", "saving", "ended"};
  return kNames[static_cast<unsigned>(state)];
}

std::string_view name_of(Outcome outcome) {
  static constexpr std::string_view kNames[] = {"powered_off", "rebooted", "suspended", "stopped",
                                                "crashed", "debug_exit", "failed"};
  return kNames[static_cast<unsigned>(outcome)];
}

Vm::Vm(std::unique_ptr<Machine> machine, ConsoleHub& console, VmOptions options)
    : machine_(std::move(machine)), console_(console), options_(std::move(options)), paused_(options_.paused) {
  retired_ = machine_->retired();
  guest_ns_ = machine_->now();
  if (machine_->real_time()) console_.on_pending([this] { machine_->soon(); });
}

Vm::~Vm() {
  if (thread_.joinable()) {
    (void)stop();
    thread_.join();
  } else {
    end({.outcome = Outcome::stopped});  // never started: nobody who asked must wait for ever
  }
  console_.on_pending({});
}

void Vm::start() { thread_ = std::thread([this] { thread_main(); }); }

Ending Vm::wait() {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [&] { return ending_.has_value(); });
  return *ending_;
}

std::optional<Ending> Vm::ended() const {
  const std::lock_guard lock(mutex_);
  return ending_;
}

// ---- requests, from any thread -------------------------------------------------------------------

template <class T>
Result<T> Vm::ask(std::function<Result<T>()> action) {
  const auto promise = std::make_shared<std::promise<Result<T>>>();  // outlives whichever side is done with it first
  std::future<Result<T>> answer = promise->get_future();
  {
    const std::lock_guard lock(mutex_);
    if (ending_) return has_ended(options_.name);
    requests_.push_back({[promise, &action] { promise->set_value(action()); },
                         [promise, this] { promise->set_value(has_ended(options_.name)); }});
  }
  wake_.notify_all();
  machine_->kick();
  return answer.get();
}

Result<> Vm::pause() {
  return ask<void>([this]() -> Result<> {
    STASIS_TRY(machine_->hold());
    paused_ = true;
    return {};
  });
}

Result<> Vm::unpause() {
  return ask<void>([this]() -> Result<> {
    paused_ = false;
    return {};
  });
}

Result<> Vm::powerdown() {
  return ask<void>([this]() -> Result<> {
    machine_->press_power_button();
    return {};
  });
}

Result<> Vm::reset() {
  return ask<void>([this]() -> Result<> {
    STASIS_TRY(machine_->hold());  // one that cannot be stopped now runs on
    return restart();
  });
}

Result<> Vm::stop() {
  stopping_ = true;  // for good: what is asked ends the machine
  return ask<void>([this]() -> Result<> {
    wanted_end_ = Ending{.outcome = Outcome::stopped};
    return {};
  });
}

Result<> Vm::report(Error problem) {
  {
    const std::lock_guard lock(mutex_);
    problem_ = std::move(problem);
  }
  return pause();
}

Result<std::string> Vm::digest() {
  return ask<std::string>([this] { return machine_->digest(); });
}

Result<SaveReport> Vm::checkpoint(const SaveRequest& request) {
  if (request.confirm) return fail(ErrorCode::usage, "request", "has 'confirm', and a checkpoint ends nothing that could wait for it", "leave it out, or suspend");
  return ask_to_save(request, false);
}
Result<SaveReport> Vm::suspend(const SaveRequest& request) { return ask_to_save(request, true); }

// What needs no guest is done before the guest is asked to stand still.
Result<SaveReport> Vm::ask_to_save(const SaveRequest& request, bool then_end) {
  {
    const std::lock_guard lock(mutex_);
    if (saving_)
      return fail(ErrorCode::busy, "machine " + options_.name, fmt::format("is already being saved to {}", save_path_),
                  "wait for that save, or cancel it");
    begin_save(request.path);
  }
  bool served = false;
  auto result = [&]() -> Result<SaveReport> {
    STASIS_TRY_SET(const PreparedSave save, prepare_save(request));
    return ask<SaveReport>([&]() -> Result<SaveReport> {
      auto saved = save_now(save);
      if (saved && then_end && request.confirm)
        if (auto taken = wait_until_taken(save); !taken) saved = std::unexpected(std::move(taken).error());
      if (saved && then_end) wanted_end_ = Ending{.outcome = Outcome::suspended};
      served = true, saving_ = false;  // before the guest goes on: who sees it do so may save it again
      return saved;
    });
  }();
  if (!served) saving_ = false;
  return result;
}

void Vm::begin_save(const std::string& path) {
  saving_ = true;
  cancel_save_ = false;
  save_path_ = path;
  save_done_ = save_total_ = 0;
  written_ = taken_ = false;
}

Result<> Vm::confirm_save(const std::string& path) {
  {
    const std::lock_guard lock(mutex_);
    if (!written_ || cancel_save_ || stopping_ || path != save_path_)
      return fail(ErrorCode::state, "machine " + options_.name, fmt::format("has no stream in {} that waits to be taken", path), "see docs/control.yaml: suspend with 'confirm'");
    taken_ = true;
  }
  wake_.notify_all();
  return {};
}

// The snapshot is nobody's as long as it is on its way.
Result<> Vm::wait_until_taken(const PreparedSave& save) {
  constexpr std::chrono::milliseconds kLook(50);
  const auto reader_has_gone = [&] {
    pollfd stream{.fd = save.stream.get(), .events = 0, .revents = 0};
    return ::poll(&stream, 1, 0) == 1 && (stream.revents & POLLERR);
  };
  std::unique_lock lock(mutex_);
  written_ = true;
  while (!taken_ && !cancel_save_ && !stopping_ && !reader_has_gone()) wake_.wait_for(lock, kLook);
  written_ = false;
  if (taken_) return {};
  if (stopping_) return fail(ErrorCode::cancelled, "machine " + options_.name, "is being stopped, and its snapshot was not taken");
  return fail(ErrorCode::cancelled, "machine " + options_.name, cancel_save_ ? "saving was cancelled" : "who read the snapshot has gone before it had all of it",
              "the guest goes on; suspend it again");
}

Result<> Vm::cancel_save() {
  const std::lock_guard lock(mutex_);
  if (taken_) return fail(ErrorCode::state, "machine " + options_.name, "is saved already, and ends");
  if (!saving_) return fail(ErrorCode::state, "machine " + options_.name, "is not being saved");
  cancel_save_ = true;
  return {};
}

std::size_t Vm::console_input(Bytes bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (ending_) return bytes.size();  // nobody reads it any more: who offers it must not wait for ever
    bytes = bytes.first(std::min(bytes.size(), kMostInput - input_.size()));
    input_.insert(input_.end(), bytes.begin(), bytes.end());
  }
  if (bytes.empty()) return 0;
  wake_.notify_all();
  machine_->kick();
  return bytes.size();
}

VmInfo Vm::info() {
  VmInfo out{.name = options_.name, .engine = std::string(machine_->engine_name()), .engine_reason = machine_->engine_reason(), .config = machine_->config(),
             .retired = retired_, .guest_ns = guest_ns_, .pace = options_.pace, .restored_from = machine_->restored_from(), .problem = {}};
  const std::lock_guard lock(mutex_);
  out.problem = problem_;
  out.save = {.active = saving_, .path = saving_ ? save_path_ : "", .bytes_done = save_done_, .bytes_total = save_total_, .written = written_};
  out.state = ending_ ? VmState::ended : saving_ ? VmState::saving : paused_ ? VmState::paused : VmState::running;
  return out;
}

// ---- the machine's thread ------------------------------------------------------------------------

void Vm::thread_main() {
  pace_host_ns_ = host::monotonic_ns();
  pace_guest_ns_ = machine_->now();
  while (!wanted_end_) {
    {
      std::unique_lock lock(mutex_);
      serve_requests(lock);
    }
    if (!wanted_end_) step();
    console_.flush();
    retired_ = machine_->retired();
    guest_ns_ = machine_->now();
  }
  if (auto held = machine_->hold(); !held) wanted_end_ = Ending{.outcome = Outcome::failed, .error = held.error()};
  end(*wanted_end_);
}

// Serves all requests, and waits for more while paused. Guest time stands still meanwhile.
void Vm::serve_requests(std::unique_lock<std::mutex>& lock) {
  if (requests_.empty() && !paused_) return;
  const u64 began = host::monotonic_ns();
  while (!wanted_end_ && (paused_ || !requests_.empty())) {
    if (requests_.empty()) {
      wake_.wait(lock);
      continue;
    }
    const Request request = std::move(requests_.front());
    requests_.pop_front();
    lock.unlock();
    request.serve();
    lock.lock();
  }
  pace_host_ns_ += host::monotonic_ns() - began;
}

bool Vm::at_stop() const { return options_.stop_at && machine_->retired() >= *options_.stop_at; }

void Vm::step() {
  if (at_stop()) return reached_stop();
  const bool more_input = feed_console();
  u64 limit = machine_->retired() + (machine_->real_time() ? more_input ? kTickWithInput : kTick : more_input ? kSliceWithInput : kSlice);
  if (options_.stop_at) limit = std::min(limit, *options_.stop_at);
  handle(machine_->run(limit));
}

void Vm::handle(MachineEvent event) {
  switch (event) {
    case MachineEvent::none:
    case MachineEvent::attention:
      if (options_.pace == Pace::host && !machine_->real_time()) hold_back();
      break;
    case MachineEvent::idle:
      if (!at_stop()) idle();
      break;
    case MachineEvent::reset:
      if (options_.no_reboot) wanted_end_ = Ending{.outcome = Outcome::rebooted};
      else (void)restart();
      break;
    case MachineEvent::power_off: wanted_end_ = Ending{.outcome = Outcome::powered_off}; break;
    case MachineEvent::debug_exit:
      wanted_end_ = Ending{.outcome = Outcome::debug_exit, .debug_status = machine_->debug_status()};
      break;
    case MachineEvent::crashed: wanted_end_ = Ending{.outcome = Outcome::crashed}; break;
    case MachineEvent::failed:
      wanted_end_ = Ending{.outcome = Outcome::failed,
                           .error = Error{ErrorCode::unsupported, "machine " + options_.name, machine_->failure(),
                                          "report it with the kernel and command line; --stop-at saves the moment before"}};
      break;
  }
}

u64 Vm::host_target(u64 guest_ns) const { return pace_host_ns_ + (guest_ns - pace_guest_ns_); }

// The vCPU is halted: waits (host pace) or jumps (fast) to the next alarm; input and requests cut the wait short.
void Vm::idle() {
  console_.flush();
  const u64 alarm = machine_->next_alarm();
  if (options_.pace == Pace::fast && alarm != Clock::kNever) return machine_->advance_idle(alarm);
  std::unique_lock lock(mutex_);
  const auto stirred = [&] { return !requests_.empty() || (!input_.empty() && machine_->uart_can_receive(0)); };
  for (;;) {
    const u64 host_now = host::monotonic_ns();
    const u64 reached = options_.pace == Pace::fast ? machine_->now() : pace_guest_ns_ + (host_now - pace_host_ns_);
    if (alarm != Clock::kNever && reached >= alarm) return machine_->advance_idle(alarm);
    if (stirred()) return machine_->advance_idle(std::max(machine_->now(), reached));
    if (alarm == Clock::kNever) wake_.wait(lock);
    else wake_.wait_for(lock, std::chrono::nanoseconds(std::min<u64>(alarm - reached, 3600 * kSecond)));
  }
}

// A guest that is ahead of the host's time waits for it.
void Vm::hold_back() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const u64 target = host_target(machine_->now()), host_now = host::monotonic_ns();
    if (host_now + 100 * kMicrosecond >= target || !requests_.empty()) return;
    wake_.wait_for(lock, std::chrono::nanoseconds(target - host_now));
  }
}

// True: the UART is full, and more waits.
bool Vm::feed_console() {
  const std::lock_guard lock(mutex_);
  while (!input_.empty() && machine_->uart_can_receive(0)) {
    machine_->uart_receive(0, input_.front());
    input_.pop_front();
  }
  return !input_.empty();
}

// A reset that fails leaves no machine that could go on.
Result<> Vm::restart() {
  auto done = machine_->reset();
  if (!done) wanted_end_ = Ending{.outcome = Outcome::failed, .error = done.error()};
  return done;
}

void Vm::reached_stop() {
  wanted_end_ = Ending{.outcome = Outcome::stopped};
  if (machine_->retired() > *options_.stop_at) {
    wanted_end_ = Ending{.outcome = Outcome::failed,
                         .error = Error{ErrorCode::usage, "--stop-at",
                                        fmt::format("{} is not possible: machine {} has executed {} instructions since power-on",
                                                    *options_.stop_at, options_.name, machine_->retired()),
                                        fmt::format("give {} or more", machine_->retired())}};
    return;
  }
  if (options_.suspend_to.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    begin_save(options_.suspend_to);
  }
  if (auto saved = save_now({.request = {.path = options_.suspend_to}})) wanted_end_ = Ending{.outcome = Outcome::suspended};
  else wanted_end_ = Ending{.outcome = Outcome::failed, .error = saved.error()};
  saving_ = false;
}

Result<SaveReport> Vm::save_now(const PreparedSave& save) {
  console_.flush();
  SaveProgress progress;
  progress.step = [this, &save](u64 done, u64 total) {
    save_done_ = done;
    save_total_ = total;
    return !cancel_save_ && !(stopping_ && save.request.stream);
  };
  return machine_->save(save, &progress);
}

void Vm::end(Ending ending) {
  console_.flush();
  std::deque<Request> left;
  {
    const std::lock_guard lock(mutex_);
    ending_ = std::move(ending);
    left.swap(requests_);
  }
  for (const Request& request : left) request.refuse();
  ended_.notify_all();
}

}  // namespace stasis
