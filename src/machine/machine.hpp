// One machine: memory, vCPU, devices, wired as a board. Single-threaded and deterministic;
// vm.hpp puts a thread, pace and requests around it.
#pragma once

#include <memory>
#include <vector>

#include "bus/system_control.hpp"
#include "cpu/engine.hpp"
#include "host/character_device.hpp"
#include "machine/config.hpp"
#include "machine/engine_choice.hpp"
#include "machine/save_request.hpp"
#include "snapshot/image.hpp"
#include "snapshot/reader.hpp"
#include "snapshot/writer.hpp"
#include "state/part.hpp"

namespace stasis {

using snapshot::SaveProgress;
using snapshot::SaveReport;

// Where the board's outputs go; all outlive the machine.
struct MachineSinks {
  host::CharacterSink* uarts[4] = {};       // COM1..COM4; null: nothing connected
  host::CharacterSink* debug_console = nullptr;
};

enum class MachineEvent {
  none,         // the count was reached
  idle,         // halted until the next alarm or input
  attention,    // kick()
  reset,        // the guest asks for a reset
  power_off,    // the guest switched itself off
  debug_exit,
  crashed,      // triple fault
  failed,
};

class Board;
class DirtyBase;

class Machine {
 public:
  // A new machine at power-on, with its kernel loaded.
  static Result<std::unique_ptr<Machine>> boot(const MachineConfig& config, BootImages images, const MachineSinks& sinks,
                                               const EngineOptions& options = {});
  // The machine in a snapshot: parsed aside, checked whole, then committed. Every problem is in the error's text.
  // `open`: how to open it (keys, parents).
  static Result<std::unique_ptr<Machine>> restore(const std::string& path, const MachineSinks& sinks, const EngineOptions& options = {},
                                                  const snapshot::OpenOptions& open = {});
  static Result<std::unique_ptr<Machine>> restore(snapshot::OpenSnapshot saved, const MachineSinks& sinks, const EngineOptions& options = {});
  ~Machine();

  // Executes until retired() == until_retired or an earlier event. The guest clock follows.
  MachineEvent run(u64 until_retired);
  // An idle machine's time moves to `time` (fires alarms on the way; stops early when the vCPU can go on).
  void advance_idle(u64 time);
  u64 next_alarm() const;   // guest ns, Clock::kNever
  u64 now() const;          // guest ns since power-on
  u64 retired() const;
  void kick();              // from any thread
  // All vCPUs stand at an instruction boundary and guest time stands still, until the next run(). An error names the vCPU
  // that did not stop; the guest then runs on.
  Result<> hold();
  bool real_time() const;   // see Engine::real_time
  void soon();              // see Engine::soon
  u32 debug_status() const;
  std::string failure() const;

  bool uart_can_receive(unsigned uart) const;
  void uart_receive(unsigned uart, u8 byte);
  void press_power_button();
  Result<> reset();          // power-on state again, kernel loaded again; time goes on

  // same_as: writes that producer (and UUID) instead of a new one, so that equal machines make equal files.
  Result<SaveReport> save(const std::string& path, SaveProgress* progress, const snapshot::Producer* same_as = nullptr,
                          const snapshot::SaveOptions& options = {});
  Result<SaveReport> save(const PreparedSave& save, SaveProgress* progress);
  Result<std::string> digest();

  // ---- which pages of RAM differ, for saves that write only those: see dirty_base.hpp ----
  // The base is the file of the last save that succeeded, or the one that the machine was restored from. Its name is
  // its root digest or its canonical digest. This gives every page that may differ from it (a bit per page by RAM
  // offset, 64 a word; valid until the next call of run(), reset() or save()), or null when the base is another one or
  // writes were not followed since: then contents are to be compared. The machine is held.
  Result<const std::vector<u64>*> dirty_since(const std::string& base);
  // The canonical digest of the file that the machine was restored from, which knows only its root until then.
  void name_restored_base(std::string digest);
  // Follows writes from here on, which the soft engine does from a restore on, and each engine from its first save on:
  // under KVM the first write to each page then costs an exit. Called before the first run() after a restore, it makes
  // the restored file the base there too.
  Result<> track_writes();

  const MachineConfig& config() const;
  std::string_view engine_name() const;
  const std::string& engine_reason() const { return engine_reason_; }  // why this engine
  const std::string& restored_from() const;        // empty: booted
  const snapshot::Producer& producer() const;      // of the file it was restored from
  VcpuState vcpu(u32 number = 0) const;     // these two after hold()
  LocalApicState apic(u32 number = 0) const;

 private:
  explicit Machine(std::unique_ptr<Board> board);
  bool can_go_on() const;
  using Writer = std::function<Result<SaveReport>(const snapshot::Image&, const snapshot::RamSource&, const snapshot::SaveOptions&)>;
  Result<snapshot::Image> image_now(const snapshot::Producer* same_as, const std::string& compat) const;
  Result<> check_goes_on() const;
  Result<SaveReport> save_with(const snapshot::Producer* same_as, const std::string& compat, snapshot::SaveOptions options, const Writer& write);
  std::unique_ptr<Board> board_;
  std::unique_ptr<DirtyBase> dirty_;  // after the board, whose engine and memory it looks at
  std::string restored_from_, engine_reason_;
  snapshot::Producer producer_;
};

}  // namespace stasis
