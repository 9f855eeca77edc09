// A guest of a few pages for the tests of this room: RAM that can be written, page tables made by hand, a vCPU record.
#pragma once

#include "inspect/page_walk.hpp"

namespace stasis::inspect::testing {

class SampleRam {
 public:
  explicit SampleRam(u64 size) : bytes(size), bits((size / kPageSize + 63) / 64) {}
  std::vector<u8> bytes;
  std::vector<u64> bits;

  void put(u64 offset, Bytes what) {
    for (u64 i = 0; i < what.size(); ++i) {
      bytes[offset + i] = what[i];
      bits[(offset + i) / kPageSize / 64] |= 1ull << ((offset + i) / kPageSize % 64);
    }
  }
  void put_u64(u64 offset, u64 value) { put(offset, {reinterpret_cast<const u8*>(&value), sizeof value}); }
  void put_text(u64 offset, std::string_view text) { put(offset, {reinterpret_cast<const u8*>(text.data()), text.size()}); }
  void entry(u64 table, u64 index, u64 value) { put_u64(table + index * 8, value); }
  PhysicalMemory memory() const { return PhysicalMemory({bytes.data(), bytes.size(), bits}); }
};

inline constexpr u64 kUsable = 3;  // present, writable

// Level by level at 0x1000, 0x2000, …: one table each, entry `index` of each leading on.
inline AddressSpace four_levels() { return {4, 0x1000, 0x1000}; }

inline cbor::Value segment_value(u64 selector) {
  cbor::Map out;
  out.set("selector", selector);
  out.set("attributes", u64{0xa9b});
  out.set("limit", u64{0xffff'ffff});
  out.set("base", 0x1000 + selector);
  return out;
}

// A record that vcpu_from() takes: registers 1, 2, …; 4-level paging at 0x1000.
inline snapshot::PartRecord vcpu_record(unsigned number) {
  cbor::Map state, fpu, table;
  cbor::Array gpr, st, xmm;
  for (u64 i = 0; i < 16; ++i) gpr.emplace_back(0x100 * number + i + 1);
  for (u8 i = 0; i < 8; ++i) st.emplace_back(cbor::ByteString(10, i));
  for (u8 i = 0; i < 16; ++i) xmm.emplace_back(cbor::ByteString(16, static_cast<u8>(0x40 + i)));
  state.set("gpr", gpr);
  for (const auto& [name, value] : {std::pair{"rip", 0xffff'ffff'8100'0000ull}, {"rflags", 0x202ull}, {"cr0", 0x8005'0033ull}, {"cr2", 0x22ull},
                                    {"cr3", 0x1000ull}, {"cr4", 0xb0ull}, {"efer", 0xd01ull}, {"kernel_gs_base", 0x77ull}, {"cpl", 0ull}})
    state.set(name, u64{value});
  u64 selector = 8;
  for (const char* name : {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"}) state.set(name, segment_value(selector += 8));
  table.set("base", u64{0xfffe'0000});
  table.set("limit", u64{0x7f});
  state.set("gdtr", table);
  state.set("idtr", table);
  for (const auto& [name, value] : {std::pair{"fcw", 0x37full}, {"fsw", 1ull}, {"ftw", 0xf0ull}, {"fop", 5ull}, {"fip", 6ull}, {"fdp", 7ull}, {"mxcsr", 0x1f80ull}})
    fpu.set(name, u64{value});
  fpu.set("st", st);
  fpu.set("xmm", xmm);
  state.set("fpu", fpu);
  return {"cpu/" + std::to_string(number), {.kind = "x86.vcpu", .version = 1, .fields = {}}, cbor::Value(std::move(state))};
}

}  // namespace stasis::inspect::testing
