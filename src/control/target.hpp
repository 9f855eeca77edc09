// What the control socket can do to a machine; a Vm behind it, or a fake in tests.
#pragma once

#include "machine/vm.hpp"

namespace stasis::control {

// Every call from any thread.
class Target {
 public:
  virtual ~Target() = default;
  virtual VmInfo info() = 0;
  virtual Result<> pause() = 0;
  virtual Result<> unpause() = 0;
  virtual Result<> powerdown() = 0;
  virtual Result<> reset() = 0;
  virtual Result<> stop() = 0;
  virtual Result<SaveReport> checkpoint(const SaveRequest& request) = 0;
  virtual Result<SaveReport> suspend(const SaveRequest& request) = 0;
  virtual Result<> cancel_save() = 0;
  virtual Result<> confirm_save(const std::string& path) = 0;
  virtual Result<std::string> digest() = 0;
  virtual std::size_t console_input(Bytes bytes) = 0;  // how many it took
  virtual u64 add_console_listener(std::function<void(Bytes)> listener) = 0;
  virtual void remove_console_listener(u64 id) = 0;
};

class VmTarget final : public Target {
 public:
  VmTarget(Vm& vm, ConsoleHub& console) : vm_(vm), console_(console) {}
  VmInfo info() override;
  Result<> pause() override;
  Result<> unpause() override;
  Result<> powerdown() override;
  Result<> reset() override;
  Result<> stop() override;
  Result<SaveReport> checkpoint(const SaveRequest& request) override;
  Result<SaveReport> suspend(const SaveRequest& request) override;
  Result<> cancel_save() override;
  Result<> confirm_save(const std::string& path) override;
  Result<std::string> digest() override;
  std::size_t console_input(Bytes bytes) override;
  u64 add_console_listener(std::function<void(Bytes)> listener) override;
  void remove_console_listener(u64 id) override;

 private:
  Vm& vm_;
  ConsoleHub& console_;
};

}  // namespace stasis::control
