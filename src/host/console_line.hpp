// One console's thread: moves bytes between a queue and file descriptors. Private to console.cpp.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/file_descriptor.hpp"
#include "host/byte_queue.hpp"
#include "host/console.hpp"
#include "host/terminal.hpp"

namespace stasis::host {

struct Console::Line {
  Line() : output(16 * kMiB, kSecond) {}
  ~Line();

  void run();
  void wake() const;

  ConsoleSpec spec;
  ByteQueue output;
  FileDescriptor wake_event;
  FileDescriptor listener;            // unix_socket only
  FileDescriptor owned;               // the file, or the socket's one client
  int in = -1, out = -1;              // borrowed from above, or 0 and 1; -1: closed
  std::optional<RawTerminal> terminal;
  Console::Input input;
  std::function<void()> leave;
  std::atomic<bool> closing{false}, finished{false}, started{false};
  std::atomic<bool> has_reader{true};  // false: a socket without a client, where output is not kept

 private:
  void take_client();
  void drop_client();
  void read_input();
  void offer_input();
  void write_output();

  std::vector<u8> offered_;  // read, and not yet taken by `input`
  bool told_of_loss_ = false;
};

}  // namespace stasis::host
