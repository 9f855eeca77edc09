// A machine in this process, from its start to its exit status: what run and resume share.
#pragma once

#include <functional>

#include "host/console.hpp"
#include "machine/vm.hpp"

namespace stasis::cli {

struct SessionOptions {
  std::string name;                 // empty: "vm-PID"
  host::ConsoleSpec console;
  host::ConsoleSpec debug_console;  // where the guest's port 0xE9 goes, if its machine has one
  VmOptions vm;                     // without the name
  bool detach = false;
  std::function<void(Vm&)> started{};  // called when the machine runs
  std::function<void()> ended{};       // and when it does not any more, before the Vm goes
  bool json = false;                // the ending as one line of JSON on standard output; errors as JSON too
};
using MakeMachine = std::function<Result<std::unique_ptr<Machine>>(const MachineSinks&)>;

// Makes the machine, runs it to its end and returns the exit status. Prints its own errors.
int run_session(const SessionOptions& options, const MakeMachine& make_machine);
int refuse_run(const Error& error, bool json);  // prints the error; returns the exit status of run and resume

}  // namespace stasis::cli
