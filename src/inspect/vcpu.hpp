// A saved vCPU, taken from its record by the names of the fields, whoever wrote the record.
#pragma once

#include <array>
#include <vector>

#include "base/error.hpp"
#include "snapshot/image.hpp"

namespace stasis::inspect {

struct Segment {
  u16 selector = 0, attributes = 0;  // attributes as a VMCB has them: type 3:0, S, DPL 6:5, P, AVL, L, D/B, G 11
  u32 limit = 0;
  u64 base = 0;
};

struct DescriptorTable {
  u64 base = 0;
  u16 limit = 0;
};

struct FloatingPoint {
  u16 fcw = 0x37f, fsw = 0, fop = 0;
  u8 ftw = 0;
  u64 fip = 0, fdp = 0;
  u32 mxcsr = 0x1f80;
  std::array<std::array<u8, 10>, 8> st{};
  std::array<std::array<u8, 16>, 16> xmm{};
};

struct ExtendedState {
  u64 xcr0 = 1, in_use = 0, bndcfgu = 0, bndstatus = 0;
  u32 pkru = 0;
  std::array<std::array<u8, 16>, 16> ymm_high{};
  std::array<std::array<u8, 16>, 4> bounds{};
  std::array<u64, 8> opmask{};
  std::array<std::array<u8, 32>, 16> zmm_high{};
  std::array<std::array<u8, 64>, 16> zmm16_31{};
};

enum GeneralRegister : u8 { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi, kR8, kR9, kR10, kR11, kR12, kR13, kR14, kR15 };

struct Vcpu {
  unsigned number = 0;  // N of the path cpu/N
  std::array<u64, 16> gpr{};
  u64 rip = 0, rflags = 0;
  Segment es, cs, ss, ds, fs, gs, ldtr, tr;
  DescriptorTable gdtr, idtr;
  u8 cpl = 0;
  u64 cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0, kernel_gs_base = 0;
  FloatingPoint fpu;
  ExtendedState xsave;
};

// Refuses (bad_file) a record that lacks what every version of it has; newer fields may be absent.
Result<Vcpu> vcpu_from(const snapshot::PartRecord& record, const std::string& object);
// All records cpu/N, ascending by N. None: `unsupported`.
Result<std::vector<Vcpu>> vcpus_of(const snapshot::Image& image, const std::string& object);
// The one of that number; `not_found` says which there are.
Result<Vcpu> vcpu_of(const snapshot::Image& image, unsigned number, const std::string& object);

}  // namespace stasis::inspect
