// The JSON bodies of the control protocol; docs/control.yaml describes them.
#pragma once

#include <string>

#include "machine/vm.hpp"

namespace stasis::control {

struct MachineReport {
  VmInfo vm;
  int pid = 0;
  std::string version;  // of the program that runs it
};

std::string to_json(const MachineReport& report);
std::string to_json(const SaveReport& report, const std::string& path);
std::string to_json(const Error& error);
std::string to_json(const std::vector<Error>& problems);
std::string digest_to_json(const std::string& digest);
std::string save_request_to_json(const SaveRequest& request);

// From the other side, so nothing is trusted. `object` is the sender, for errors.
Result<MachineReport> machine_report_from(const std::string& json, const std::string& object);
Result<SaveReport> save_report_from(const std::string& json, const std::string& object);
Result<std::string> digest_from(const std::string& json, const std::string& object);
Error error_from(const std::string& json, const std::string& object);
// Its paths become absolute: those that are not are in the client's folder `cwd`.
Result<SaveRequest> save_request_from(const std::string& json);
// Whose stream has been taken: {"path": …}, as in the save's own request.
std::string confirmation_to_json(const std::string& path);
Result<std::string> confirmed_path_from(const std::string& json);

}  // namespace stasis::control
