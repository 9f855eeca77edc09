// The other end of the control socket: what the command line says to a running machine.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/file_descriptor.hpp"
#include "control/messages.hpp"
#include "control/runtime_dir.hpp"

namespace stasis::control {

// Each call is a connection of its own, so several threads may use one client.
class Client {
 public:
  static Result<Client> open(std::string_view name, const std::string& dir = runtime_dir());

  // The JSON text of the answer. `seconds`: how long the machine may take; absent: as long as it wants.
  Result<std::string> call(std::string_view method, std::string_view path, const std::string& body = {},
                           std::optional<unsigned> seconds = std::nullopt) const;
  Result<MachineReport> info(unsigned seconds = 10) const;

  struct ConsoleStream {
    FileDescriptor socket;
    std::vector<u8> early;  // output that came with the answer
  };
  Result<ConsoleStream> console() const;

  const std::string& object() const { return object_; }  // "machine NAME", for errors

 private:
  std::string object_, socket_;
};

}  // namespace stasis::control
