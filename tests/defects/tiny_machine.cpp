// Booting, running and rewriting small machines.
#include "tiny_machine.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>

#include "snapshot_memory.hpp"

namespace stasis::tiny {

Folder::Folder() {
  std::string name = (std::filesystem::temp_directory_path() / "stasis-defects-XXXXXX").string();
  STASIS_ASSERT(::mkdtemp(name.data()));
  path_ = name;
}

std::vector<std::string> Folder::files() const {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) out.push_back(entry.path().filename());
  std::ranges::sort(out);
  return out;
}

MachineConfig config() { return {.memory_bytes = 2 * kMiB, .debug_exit = true, .start_time = 1'750'000'000}; }

std::unique_ptr<Machine> boot(Bytes program, const MachineSinks& sinks) { return must(Machine::boot(config(), images(program), sinks)); }

MachineEvent run_to(Machine& machine, u64 count) {
  for (;;) {
    const MachineEvent event = machine.run(count);
    if (event == MachineEvent::attention) continue;
    if (event != MachineEvent::idle || machine.next_alarm() == Clock::kNever || machine.retired() >= count) return event;
    machine.advance_idle(machine.next_alarm());
  }
}

MachineEvent run_on(Machine& machine, u64 count) { return run_to(machine, machine.retired() + count); }

std::unique_ptr<Machine> restore(const std::string& path) { return must(Machine::restore(path, {})); }

std::string content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

void write_file(const std::string& path, Bytes bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

Taken take_apart(const std::string& path) {
  const snapshot::OpenSnapshot opened = must(snapshot::open(path));
  const std::string whole = content(path);
  Taken out{opened.image, std::vector<u8>(opened.image.ram_size), opened.nonzero};
  std::memcpy(out.ram.data(), whole.data() + opened.ram_offset, out.ram.size());
  return out;
}

std::vector<u8> put_together(const Taken& taken) {
  snapshot::testing::MemorySink sink;
  const std::vector<u64> all((taken.ram.size() / kPageSize + 63) / 64, ~0ull);
  (void)must(snapshot::encode(sink, taken.image, {taken.ram.data(), taken.ram.size(), all}, nullptr));
  return std::move(sink.bytes);
}

cbor::Value& field_of(snapshot::Image& image, std::string_view part, std::string_view field) {
  cbor::Value* value = part == "machine" ? &image.machine.state : nullptr;
  for (snapshot::PartRecord& record : image.parts)
    if (record.path == part) value = &record.state;
  STASIS_ASSERT(value);
  while (!field.empty()) {
    const std::string_view name = field.substr(0, field.find('/'));
    field.remove_prefix(std::min(field.size(), name.size() + 1));
    auto* map = value->as<cbor::Map>();
    STASIS_ASSERT(map);
    const auto member = std::ranges::find(map->members(), name, &cbor::Member::first);
    STASIS_ASSERT(member != map->members().end());
    value = &member->second;
  }
  return *value;
}

}  // namespace stasis::tiny
