// The control socket's machine is a Vm.
#include "control/target.hpp"

namespace stasis::control {

VmInfo VmTarget::info() { return vm_.info(); }
Result<> VmTarget::pause() { return vm_.pause(); }
Result<> VmTarget::unpause() { return vm_.unpause(); }
Result<> VmTarget::powerdown() { return vm_.powerdown(); }
Result<> VmTarget::reset() { return vm_.reset(); }
Result<> VmTarget::stop() { return vm_.stop(); }
Result<SaveReport> VmTarget::checkpoint(const SaveRequest& request) { return vm_.checkpoint(request); }
Result<SaveReport> VmTarget::suspend(const SaveRequest& request) { return vm_.suspend(request); }
Result<> VmTarget::cancel_save() { return vm_.cancel_save(); }
Result<> VmTarget::confirm_save(const std::string& path) { return vm_.confirm_save(path); }
Result<std::string> VmTarget::digest() { return vm_.digest(); }

std::size_t VmTarget::console_input(Bytes bytes) { return vm_.console_input(bytes); }

u64 VmTarget::add_console_listener(std::function<void(Bytes)> listener) { return console_.add(std::move(listener)); }
void VmTarget::remove_console_listener(u64 id) { console_.remove(id); }

}  // namespace stasis::control
