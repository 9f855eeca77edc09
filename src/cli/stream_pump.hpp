// Bytes from a machine's process to this one's standard output: a FIFO that only the two of them know.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "base/error.hpp"
#include "base/file_descriptor.hpp"

namespace stasis::cli {

class StreamPump {
 public:
  // Refuses a terminal as standard output. The FIFO goes with the pump.
  static Result<StreamPump> create();
  StreamPump(StreamPump&& other) noexcept : folder_(other.folder_), fifo_(std::move(other.fifo_)), removed_(other.removed_.exchange(true)) {}
  StreamPump& operator=(StreamPump&&) = delete;
  ~StreamPump();
  void close();   // the reading end: the writer notices
  void remove();  // the FIFO, from the file system, where nobody opens it again; from any thread

  std::string path() const { return folder_ + "/stream"; }
  // Until `done`, which is asked when the FIFO is empty, says so and it is empty still. An error here closes the FIFO, which the
  // writer notices. `failed` ends the wait for a reader of standard output that stalls: of a save that was made, nothing may be
  // lost here. The FIFO has no name any more once the writer has it open, so that whatever ends this process leaves none.
  Result<> run(const std::function<bool()>& done, const std::function<bool()>& failed);

 private:
  Result<> copy(const std::function<bool()>& done, const std::function<bool()>& failed);
  StreamPump(std::string folder, FileDescriptor fifo) : folder_(std::move(folder)), fifo_(std::move(fifo)) {}
  std::string folder_;
  FileDescriptor fifo_;
  std::atomic<bool> removed_{false};
};

}  // namespace stasis::cli
