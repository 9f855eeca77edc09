// A running machine: one thread executes it; everybody else asks through this class.
//
// All requests are thread-safe, take effect at an instruction boundary and return when done.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <thread>

#include "machine/console_hub.hpp"
#include "machine/machine.hpp"

namespace stasis {

enum class Pace {
  host,  // guest time never runs ahead of host time; an idle guest sleeps
  fast,  // idle time is skipped
};

enum class Outcome {
  powered_off,  // ACPI S5
  rebooted,     // the guest asked for a reset and --no-reboot was given
  suspended,    // saved, then ended
  stopped,      // somebody asked to stop it, or --stop-at was reached
  crashed,      // triple fault
  debug_exit,   // a dword to port 0xF4; see Ending::debug_status
  failed,       // our error; see Ending::error
};

struct Ending {
  Outcome outcome = Outcome::stopped;
  u32 debug_status = 0;
  Error error{};
};

struct VmOptions {
  std::string name;
  Pace pace = Pace::host;
  std::optional<u64> stop_at;  // retired instructions since power-on; fewer than it has already: it ends as `failed`, usage
  std::string suspend_to;      // absolute path; saved there when stop_at is reached; fails: the machine ends as `failed`
  bool no_reboot = false;
  bool paused = false;         // start paused
};

enum class VmState { running, paused, saving, ended };
std::string_view name_of(VmState state);
std::string_view name_of(Outcome outcome);

struct SaveStatus {
  bool active = false;
  std::string path;
  u64 bytes_done = 0, bytes_total = 0;
  bool written = false;  // all is in the stream; the machine waits for confirm_save()
};

struct VmInfo {
  std::string name;
  VmState state = VmState::running;
  std::string engine, engine_reason;  // name, and why this one
  MachineConfig config;
  u64 retired = 0;    // instructions since power-on
  u64 guest_ns = 0;   // guest time since power-on
  Pace pace = Pace::host;
  SaveStatus save;
  std::string restored_from;  // empty: booted
  std::optional<Error> problem;  // found while it ran: see Vm::report()
};

class Vm {
 public:
  // `console`: the hub that was given to the machine as its first UART's sink; outlives the Vm.
  Vm(std::unique_ptr<Machine> machine, ConsoleHub& console, VmOptions options);
  ~Vm();  // stops and joins

  void start();                   // begins to execute on a thread of its own
  Ending wait();                  // until the machine ended
  std::optional<Ending> ended() const;

  VmInfo info();
  Result<> pause();
  Result<> unpause();
  Result<> powerdown();           // presses the power button
  Result<> reset();               // a machine that cannot start again ends as `failed`
  Result<> stop();                // cancels a save into a stream, which may stall; others it waits for
  Result<SaveReport> checkpoint(const SaveRequest& request);  // the guest goes on afterwards
  Result<SaveReport> suspend(const SaveRequest& request);     // then the machine ends as `suspended`
  Result<> cancel_save();         // the save in progress, if any, returns `cancelled`, and the guest goes on
  // The reader of a suspended machine's stream (SaveRequest::confirm) has all of it: the machine may end. Without it, or when
  // the reader closes the stream, the guest goes on.
  Result<> confirm_save(const std::string& path);  // SaveRequest::path of the save that is meant
  Result<std::string> digest();
  // What somebody found wrong with the machine: info() tells it from now on. Pauses it; to unpause it is the user's own risk.
  Result<> report(Error problem);

  // To COM1: bytes queue up until the UART takes them; returns how many found room. (From it: ConsoleHub.)
  std::size_t console_input(Bytes bytes);

 private:
  struct Request {
    std::function<void()> serve;
    std::function<void()> refuse;  // the machine ended first
  };
  void thread_main();
  void serve_requests(std::unique_lock<std::mutex>& lock);
  bool at_stop() const;
  void step();
  void handle(MachineEvent event);
  void idle();
  void hold_back();
  bool feed_console();
  void reached_stop();
  void end(Ending ending);
  u64 host_target(u64 guest_ns) const;
  Result<> restart();
  void begin_save(const std::string& path);  // mutex_ is held
  Result<SaveReport> save_now(const PreparedSave& save);
  Result<> wait_until_taken(const PreparedSave& save);
  Result<SaveReport> ask_to_save(const SaveRequest& request, bool then_end);
  template <class T>
  Result<T> ask(std::function<Result<T>()> action);

  std::unique_ptr<Machine> machine_;
  ConsoleHub& console_;
  const VmOptions options_;
  std::thread thread_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_, ended_;
  std::deque<Request> requests_;
  std::deque<u8> input_;
  std::optional<Ending> ending_;
  std::string save_path_;
  std::optional<Error> problem_;
  bool written_ = false, taken_ = false;  // of a save's stream: nothing is left to write; its reader has said so

  std::atomic<bool> saving_{false}, cancel_save_{false}, stopping_{false}, paused_{false};
  std::atomic<u64> save_done_{0}, save_total_{0}, retired_{0}, guest_ns_{0};

  // The machine's thread only.
  std::optional<Ending> wanted_end_;
  u64 pace_host_ns_ = 0, pace_guest_ns_ = 0;  // an instant known on both clocks
};

}  // namespace stasis
