// Snapshots in memory for tests: a sink and a source without a file, and a small machine to save.
#pragma once

#include <cstdio>
#include <memory>
#include <random>

#include "snapshot/encoder.hpp"
#include "snapshot/reader.hpp"

namespace stasis::snapshot::testing {

class MemorySink : public Sink {
 public:
  std::vector<u8> bytes;
  u64 announced = 0, settled_at = 0, room = ~0ull;
  Result<> announce(u64 length, u64) override { return announced = length, Result<>{}; }
  Result<> write(Bytes more) override {
    if (bytes.size() + more.size() > room) return fail(ErrorCode::host, "sink", "the disk is full");
    bytes.insert(bytes.end(), more.begin(), more.end());
    return {};
  }
  Result<> skip_hole(u64 size) override { return bytes.resize(bytes.size() + size), Result<>{}; }
  Result<> settle() override { return settled_at = bytes.size(), Result<>{}; }
};

class MemorySource : public Source {
 public:
  explicit MemorySource(std::vector<u8> held) : bytes(std::move(held)) {}
  std::vector<u8> bytes;
  u64 size() const override { return bytes.size(); }
  Result<> read(u64 offset, MutableBytes out) const override {
    if (offset > bytes.size() || out.size() > bytes.size() - offset) return fail(ErrorCode::bad_file, "memory", "ends too early");
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    return {};
  }
};

inline PartRecord record(std::string path, std::string kind, u64 value) {
  state::FieldSchema field;
  field.name = "value", field.type = "u64", field.unit = "ns";
  cbor::Map state;
  state.set("value", value);
  return {std::move(path), {.kind = std::move(kind), .version = 1, .fields = {field}}, cbor::Value(std::move(state))};
}

// RAM of `pages`, of which those in `filled` are random.
struct Ram {
  explicit Ram(u64 pages, const std::vector<u64>& filled = {}) : bytes(pages * kPageSize), bits((pages + 63) / 64) {
    std::mt19937_64 random(pages);
    for (const u64 page : filled) {
      for (u64 i = 0; i < kPageSize; ++i) bytes[page * kPageSize + i] = static_cast<u8>(random());
      bits[page / 64] |= 1ull << (page % 64);
    }
  }
  RamSource source() const { return {bytes.data(), bytes.size(), bits}; }
  std::vector<u8> bytes;
  std::vector<u64> bits;
};

inline Image image_of(const Ram& ram) {
  Image out;
  out.producer = {.program = "stasis", .version = "0.1.0", .created_at = "2025-01-02T03:04:05Z", .uuid = {1, 2, 3, 4, 5, 6, 7, 8, 9}};
  out.machine = record("machine", "stasis.machine", 64);
  out.host = {{"vda", "disk", "was /srv/a.img"}};
  out.parts = {record("isa/uart0", "ns16550", 7), record("cpu/0", "x86.vcpu", 0xffff'ffff'ffff), record("cpu/contract", "x86.cpu_contract", 1)};
  out.ram_size = ram.bytes.size();
  return out;
}

inline std::vector<u8> encoded(const Image& image, const Ram& ram, const SaveOptions& options = {}) {
  MemorySink sink;
  const auto report = encode(sink, image, ram.source(), nullptr, options);
  if (!report) std::fputs((report.error().text() + "\n").c_str(), stderr);
  STASIS_ASSERT(report);
  return std::move(sink.bytes);
}

inline Result<OpenSnapshot> open_memory(std::vector<u8> bytes, const OpenOptions& options = {}, std::shared_ptr<const OpenSnapshot> parent = nullptr) {
  auto source = std::make_shared<MemorySource>(std::move(bytes));
  STASIS_TRY_SET(Decoded decoded, decode(*source, "test", options));
  return OpenSnapshot{std::move(decoded), "test", {}, source, std::move(parent)};
}

// All RAM of a snapshot, whatever its encoding.
inline Result<std::vector<u8>> ram_of(const OpenSnapshot& snapshot) {
  std::vector<u8> out(snapshot.image.ram_size);
  STASIS_TRY(load_ram(snapshot, out.data(), false));
  return out;
}

}  // namespace stasis::snapshot::testing
