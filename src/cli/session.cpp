// The life of a machine's process: name, console, machine, socket; then waiting; then all of it back in reverse.
#include "cli/session.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <mutex>
#include <thread>

#include "cli/detach.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "control/server.hpp"
#include "host/host_clock.hpp"
#include "host/signals.hpp"
#include "host/terminal.hpp"

namespace stasis::cli {
namespace {

constexpr u64 kSameSignal = kSecond;  // timeout(1) and terminals send one wish as several signals

// Stops the machine when a signal or the leave key asks for it. A later signal ends the process at once.
class Stopper {
 public:
  ~Stopper() {
    if (thread_.joinable()) thread_.join();
  }
  void watch(Vm* vm) {
    const std::lock_guard lock(mutex_);
    vm_ = vm;
  }
  void stop() {
    const std::lock_guard lock(mutex_);
    if (!vm_ || thread_.joinable()) return;
    thread_ = std::thread([vm = vm_] { (void)vm->stop(); });
  }
  void on_signal(int number) {
    const u64 now = host::monotonic_ns();
    const bool again = first_signal_ns_ != 0;  // the machine may have ended by then
    if (again ? now - first_signal_ns_ > kSameSignal : !watching()) {
      host::give_terminal_back();
      ::_exit(128 + number);
    }
    if (!again) first_signal_ns_ = now;
    stop();
  }
  // No more calls into the machine after this.
  void forget() {
    std::thread stopping;
    {
      const std::lock_guard lock(mutex_);
      vm_ = nullptr;
      stopping = std::move(thread_);
    }
    if (stopping.joinable()) stopping.join();
  }

 private:
  bool watching() {
    const std::lock_guard lock(mutex_);
    return vm_ != nullptr;
  }
  std::mutex mutex_;
  Vm* vm_ = nullptr;
  std::thread thread_;
  u64 first_signal_ns_ = 0;  // the watcher's thread only
};

std::string json_of(const Ending& ending, const VmInfo& info) {
  return fmt::format(R"({{"outcome": "{}", "status": {}, "retired": {}, "guest_ns": {}}})" "\n", name_of(ending.outcome),
                     status_of(ending), info.retired, info.guest_ns);
}

void tell(const Ending& ending, const VmInfo& info, bool json, bool console_is_stdio) {
  const std::string object = "machine " + info.name;
  if (ending.outcome == Outcome::failed) print_error(ending.error, json);
  if (ending.outcome == Outcome::crashed && !json)
    print_error({ErrorCode::state, object, fmt::format("the guest crashed (triple fault) after {} instructions", info.retired),
                 "resume an earlier snapshot with --stop-at to look at the moments before"}, false);
  if (json) print((console_is_stdio ? "\n" : "") + json_of(ending, info));  // on a line of its own
}

// Whichever way a session ends, its threads let go of the machine before that goes.
struct Closing {
  host::Console& console;
  Stopper& stopper;
  ~Closing() {
    console.close();
    stopper.forget();
  }
};

Result<int> run_here(const SessionOptions& options, const MakeMachine& make_machine, Detached& detached) {
  Stopper stopper;
  STASIS_TRY_SET(const auto signals, host::SignalWatcher::start([&](int number) { stopper.on_signal(number); }));
  const std::string name = options.name.empty() ? fmt::format("vm-{}", ::getpid()) : options.name;
  STASIS_TRY_SET(control::ClaimedName claimed, control::ClaimedName::claim(name));
  STASIS_TRY_SET(const auto console, host::Console::open(options.console));
  STASIS_TRY_SET(const auto debug_console, host::Console::open(options.debug_console));
  ConsoleHub hub;
  hub.add([&](Bytes bytes) { console->write(bytes); });
  MachineSinks sinks;
  sinks.uarts[0] = &hub;
  sinks.debug_console = debug_console.get();
  STASIS_TRY_SET(auto machine, make_machine(sinks));

  VmOptions vm_options = options.vm;
  vm_options.name = name;
  Vm vm(std::move(machine), hub, std::move(vm_options));
  control::VmTarget target(vm, hub);
  stopper.watch(&vm);
  const Closing closing{*console, stopper};
  STASIS_TRY(console->start([&](Bytes bytes) { return vm.console_input(bytes); }, [&] { stopper.stop(); }));
  STASIS_TRY_SET(const auto server, control::Server::start(std::move(claimed), target));
  const Result<> ready = detached.active() ? detached.ready(name) : Result<>{};
  vm.start();
  if (!ready) (void)vm.stop();
  if (options.started) options.started(vm);
  const Ending ending = vm.wait();
  if (options.ended) options.ended();
  server->stop();
  console->close();
  debug_console->close();
  stopper.forget();
  STASIS_TRY(ready);
  tell(ending, vm.info(), options.json, options.console.kind == host::ConsoleKind::stdio);
  const int status = status_of(ending);
  return status == kPoweredOff && output_failed() ? kOurError : status;
}

}  // namespace

int refuse_run(const Error& error, bool json) {
  print_error(error, json);
  return run_status_of(error);
}

int run_session(const SessionOptions& options, const MakeMachine& make_machine) {
  host::prepare_signals();
  Detached detached;
  if (options.detach) {
    const auto parent = detached.detach();
    if (!parent) return refuse_run(parent.error(), options.json);
    if (*parent) return **parent;
  }
  const auto status = run_here(options, make_machine, detached);
  return status ? *status : refuse_run(status.error(), options.json);
}

}  // namespace stasis::cli
