// x87, SSE and the XSAVE components (Intel SDM vol. 1, 13.4: the standard format; KVM_GET_XSAVE2).
#include "cpu/kvm/kvm_abi.hpp"

#include <algorithm>
#include <cstring>

#include "cpu/kvm/vcpu.hpp"

namespace stasis::kvm {
namespace {

constexpr unsigned kStateBitmap = 512;
constexpr u64 kX87 = 1, kSse = 2;

template <class T>
void take(T& out, const std::vector<u8>& area, std::size_t at) {
  std::memcpy(&out, area.data() + at, sizeof(T));
}
template <class T>
void put(std::vector<u8>& area, std::size_t at, const T& value) {
  std::memcpy(area.data() + at, &value, sizeof(T));
}

void legacy_from(FpuState& out, const std::vector<u8>& area) {
  take(out.fcw, area, 0), take(out.fsw, area, 2), take(out.ftw, area, 4), take(out.fop, area, 6);
  out.fop &= 0x7ff;
  take(out.fip, area, 8), take(out.fdp, area, 16), take(out.mxcsr, area, 24);
  out.mxcsr &= FpuState::kMxcsrMask;
  for (unsigned i = 0; i < 8; ++i) take(out.st[i], area, 32 + 16 * i);
  take(out.xmm, area, 160);
}

void legacy_to(std::vector<u8>& area, const FpuState& in) {
  put(area, 0, in.fcw), put(area, 2, in.fsw), put(area, 4, in.ftw), put(area, 6, in.fop);
  put(area, 8, in.fip), put(area, 16, in.fdp), put(area, 24, in.mxcsr);
  for (unsigned i = 0; i < 8; ++i) put(area, 32 + 16 * i, in.st[i]);
  put(area, 160, in.xmm);
}

// One visitor for both directions: (component, its offset within it, the field).
template <class State, class Visit>
void each_field(State& xsave, Visit visit) {
  visit(2, 0, xsave.ymm_high);
  visit(3, 0, xsave.bounds);
  visit(4, 0, xsave.bndcfgu), visit(4, 8, xsave.bndstatus);
  visit(5, 0, xsave.opmask);
  visit(6, 0, xsave.zmm_high);
  visit(7, 0, xsave.zmm16_31);
  visit(9, 0, xsave.pkru);
}

}  // namespace

Result<> Vcpu::read_fpu(VcpuState& out) const {
  std::vector<u8> area(xsave_size_);
  STASIS_TRY(call("KVM_GET_XSAVE", vm_->system().xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, area.data()));
  legacy_from(out.fpu, area);
  out.xsave = {.xss = out.xsave.xss};
  if (!has_xsave_) return {};
  u64 in_use;
  take(in_use, area, kStateBitmap);
  out.xsave.in_use = in_use & XsaveState::kHeld & components_;
  each_field(out.xsave, [&](unsigned component, std::size_t at, auto& field) {
    if (component_at_[component] && (in_use >> component & 1)) take(field, area, component_at_[component] + at);
  });
  const auto tiles = [&](unsigned component, std::size_t size, std::vector<u8>& field) {
    const u32 at = component_at_[component];
    if (at && (in_use >> component & 1)) field.assign(area.begin() + at, area.begin() + static_cast<std::ptrdiff_t>(at + size));
  };
  tiles(17, 64, out.xsave.tile_config);
  tiles(18, 8192, out.xsave.tile_data);
  kvm_xcrs xcrs{};
  STASIS_TRY(call("KVM_GET_XCRS", KVM_GET_XCRS, &xcrs));
  for (u32 i = 0; i < std::min<u32>(xcrs.nr_xcrs, KVM_MAX_XCRS); ++i)
    if (xcrs.xcrs[i].xcr == 0) out.xsave.xcr0 = xcrs.xcrs[i].value;
  return {};
}

Result<> Vcpu::write_fpu(const VcpuState& in) {
  std::vector<u8> area(xsave_size_);
  legacy_to(area, in.fpu);
  const FpuState initial{.fcw = 0x37f, .ftw = 0};
  u64 in_use = has_xsave_ ? in.xsave.in_use & components_ : 0;
  if (in.fpu.fcw != initial.fcw || in.fpu.ftw != 0 || in.fpu.fsw != 0 || in.fpu.st != initial.st || in.fpu.fip || in.fpu.fdp || in.fpu.fop) in_use |= kX87;
  if (in.fpu.xmm != initial.xmm || in.fpu.mxcsr != initial.mxcsr) in_use |= kSse;
  put(area, kStateBitmap, in_use);
  if (has_xsave_) {
    each_field(in.xsave, [&](unsigned component, std::size_t at, const auto& field) {
      if (component_at_[component]) put(area, component_at_[component] + at, field);
    });
    const auto tiles = [&](unsigned component, const std::vector<u8>& field) {
      if (component_at_[component] && !field.empty()) std::ranges::copy(field, area.begin() + component_at_[component]);
    };
    tiles(17, in.xsave.tile_config);
    tiles(18, in.xsave.tile_data);
    kvm_xcrs xcrs{};
    xcrs.nr_xcrs = 1;
    xcrs.xcrs[0].value = in.xsave.xcr0;
    STASIS_TRY(call("KVM_SET_XCRS", KVM_SET_XCRS, &xcrs));
  }
  return call("KVM_SET_XSAVE", KVM_SET_XSAVE, area.data());
}

}  // namespace stasis::kvm
