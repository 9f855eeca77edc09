// A machine that only remembers what it was asked; for tests of the control socket.
#pragma once

#include <atomic>
#include <map>
#include <mutex>

#include "control/target.hpp"

namespace stasis::control {

class FakeTarget final : public Target {
 public:
  VmInfo info() override {
    VmInfo out{.name = "fake", .state = state, .engine = "none", .config = {}, .retired = 12'345'678'901'234, .guest_ns = 5, .save = {}, .restored_from = {}};
    out.config.memory_bytes = 64 * kMiB;
    return out;
  }
  Result<> pause() override { return note("pause", VmState::paused); }
  Result<> unpause() override { return note("unpause", VmState::running); }
  Result<> powerdown() override { return note("powerdown", state); }
  Result<> reset() override { return note("reset", state); }
  Result<> stop() override { return note("stop", VmState::ended); }
  Result<SaveReport> checkpoint(const SaveRequest& request) override { return save("checkpoint " + request.path); }
  Result<SaveReport> suspend(const SaveRequest& request) override { return save("suspend " + request.path); }
  Result<> confirm_save(const std::string& path) override { return note("confirm_save " + path, state); }
  Result<> cancel_save() override { return fail(ErrorCode::state, "machine fake", "is not being saved"); }
  Result<std::string> digest() override { return "0123456789abcdef0123456789abcdef"; }
  std::size_t console_input(Bytes bytes) override {  // echoes
    const std::lock_guard lock(mutex);
    for (auto& [id, listener] : listeners) listener(bytes);
    return bytes.size();
  }
  u64 add_console_listener(std::function<void(Bytes)> listener) override {
    const std::lock_guard lock(mutex);
    listeners[++last_id] = std::move(listener);
    return last_id;
  }
  void remove_console_listener(u64 id) override {
    const std::lock_guard lock(mutex);
    listeners.erase(id);
  }

  std::string last() {
    const std::lock_guard lock(mutex);
    return last_action;
  }
  std::size_t listening() {
    const std::lock_guard lock(mutex);
    return listeners.size();
  }

  std::atomic<VmState> state{VmState::running};
  std::function<void()> while_saving;  // called in checkpoint and suspend

 private:
  Result<> note(std::string action, VmState next) {
    const std::lock_guard lock(mutex);
    last_action = std::move(action);
    state = next;
    return {};
  }
  Result<SaveReport> save(std::string action) {
    if (while_saving) while_saving();
    const std::lock_guard lock(mutex);
    last_action = std::move(action);
    return SaveReport{.file_bytes = 1000, .stored_bytes = 900, .pages_present = 3, .root = "r", .digest = "d"};
  }

  std::mutex mutex;
  std::string last_action;
  std::map<u64, std::function<void(Bytes)>> listeners;
  u64 last_id = 0;
};

}  // namespace stasis::control
