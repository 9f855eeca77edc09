// The outside end of a serial line: the person's terminal or pipes, a file, a UNIX socket, or nothing.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/error.hpp"
#include "host/character_device.hpp"

namespace stasis::host {

enum class ConsoleKind { none, stdio, file, unix_socket };

struct ConsoleSpec {
  ConsoleKind kind = ConsoleKind::none;
  std::string path;       // of file and unix_socket
  bool append = false;    // a file is continued instead of begun anew
  bool operator==(const ConsoleSpec&) const = default;
};
// "stdio", "none", "file:PATH" or "unix:PATH". `option` is the object of the error.
Result<ConsoleSpec> parse_console(std::string_view text, const std::string& option);

// Output goes through a bounded buffer and a thread: a reader that lives gets every byte, one that takes nothing for
// a second while the buffer is full loses bytes instead of stopping the guest. A terminal is raw while it lives.
class Console final : public CharacterSink {
 public:
  // Bytes from the outside; returns how many it took. The rest is offered again a little later.
  using Input = std::function<std::size_t(Bytes)>;

  static Result<std::unique_ptr<Console>> open(const ConsoleSpec& spec);
  ~Console() override;

  // Begins to deliver input, on the console's thread. `leave`: the leave key was typed at the terminal; once at most.
  // A terminal becomes raw here, so that a failure before it is seen as usual.
  Result<> start(Input input, std::function<void()> leave);

  // On the machine's thread.
  void put(u8 byte) override { write(Bytes(&byte, 1)); }
  void write(Bytes bytes);

  // Writes out what is left as long as the outside takes it, and gives everything back. No input afterwards.
  void close();

 private:
  struct Line;
  explicit Console(std::shared_ptr<Line> line) : line_(std::move(line)) {}
  std::shared_ptr<Line> line_;  // shared with the thread, which a stuck outside may hold for ever
  std::thread thread_;
};

}  // namespace stasis::host
