// A small machine for tests, and its snapshot taken apart and put together again.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "guests.hpp"
#include "machine/machine.hpp"

namespace stasis::tiny {

class Folder {
 public:
  Folder();
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(std::string_view name) const { return (path_ / name).string(); }
  std::vector<std::string> files() const;

 private:
  std::filesystem::path path_;
};

MachineConfig config();  // 2 MiB, debug exit
std::unique_ptr<Machine> boot(Bytes program, const MachineSinks& sinks = {});

// Skips idle time. `none`: the count was reached; `idle`: it will never go on by itself.
MachineEvent run_to(Machine& machine, u64 count);
MachineEvent run_on(Machine& machine, u64 count);

template <class T>
T must(Result<T> result) {
  if (!result) {
    std::fputs((result.error().text() + "\n").c_str(), stderr);
    std::abort();
  }
  return std::move(*result);
}
inline void must(Result<> result) {
  if (!result) {
    std::fputs((result.error().text() + "\n").c_str(), stderr);
    std::abort();
  }
}
std::unique_ptr<Machine> restore(const std::string& path);
std::string content(const std::string& path);
void write_file(const std::string& path, Bytes bytes);

// What a snapshot file says, open to changes; encoded again its digests are right.
struct Taken {
  snapshot::Image image;
  std::vector<u8> ram;
  std::vector<u64> nonzero;
};
Taken take_apart(const std::string& path);
std::vector<u8> put_together(const Taken& taken);

// The state of one part; `field` as "pending/valid".
cbor::Value& field_of(snapshot::Image& image, std::string_view part, std::string_view field);

}  // namespace stasis::tiny
