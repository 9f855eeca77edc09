// The records of a vCPU and of a CPU contract: their locked layouts, and that those of every version load.
#include "cpu/vcpu_state.hpp"

#include <gtest/gtest.h>

#include <contract.hpp>  // of tests/support, not cpu/contract.hpp
#include "cpu/checks.hpp"

using namespace stasis;
namespace {

struct VcpuRecord final : state::Stateful<VcpuState> {
  std::string check(const VcpuState& staged) const override { return check_vcpu(staged); }
};
struct ContractRecord final : state::Stateful<CpuContract> {};

template <class Record>
struct Rig {
  Clock clock;
  Record record;
  state::Part& part() { return record; }
};

TEST(VcpuState, schema_is_locked) { contract::schema_is_locked(state::schema_of<VcpuState>()); }
TEST(VcpuState, golden_versions_load) { contract::golden_versions_load<Rig<VcpuRecord>>(); }
TEST(CpuContract, schema_is_locked) { contract::schema_is_locked(state::schema_of<CpuContract>()); }
TEST(CpuContract, golden_versions_load) { contract::golden_versions_load<Rig<ContractRecord>>(); }

// What version 1 said is there, what it did not know has the value that its guests had.
TEST(VcpuState, version_1_keeps_its_values_and_gets_defaults_for_the_rest) {
  const std::string text = contract::read_text(contract::golden_folder() / "records" / "x86.vcpu.v1.cbor");
  Rig<VcpuRecord> rig;
  const auto restored = contract::restore_bytes(rig, {reinterpret_cast<const u8*>(text.data()), text.size()}, 1, 0);
  ASSERT_TRUE(restored) << restored.error().text();
  const VcpuState& s = rig.record.state();
  EXPECT_EQ(s.rip, 0xffff'ffff'8100'1234u);
  EXPECT_EQ(s.gpr[kR15], 0xffff'ffff'ffff'ffffu);
  EXPECT_EQ(s.pending, (PendingEventState{.valid = true, .vector = 14, .has_error_code = true, .error_code = 2}));
  EXPECT_EQ(s.fpu.xmm[3][2], 0x5a);
  EXPECT_EQ(s.exception, PendingEventState{});
  EXPECT_EQ(s.xsave, XsaveState{});
  EXPECT_TRUE(s.other_msrs.empty());
}

// Every field that version 2 added comes back with the value it was saved with.
TEST(VcpuState, version_2_fields_come_back) {
  VcpuState s;
  s.pending = {.valid = true, .vector = 2, .type = EventType::nmi};
  s.exception = {.valid = true, .vector = 14, .has_error_code = true, .error_code = 6, .type = EventType::exception, .has_payload = true, .payload = 0x7000};
  s.xsave.xcr0 = 0x600e7, s.xsave.in_use = 0x60084;
  s.xsave.ymm_high[15][15] = 1, s.xsave.zmm_high[1][31] = 2, s.xsave.zmm16_31[15][63] = 3, s.xsave.opmask[7] = 4, s.xsave.pkru = 5;
  s.xsave.bounds[3][0] = 6, s.xsave.bndcfgu = 7, s.xsave.bndstatus = 8;
  s.xsave.tile_config.assign(64, 9), s.xsave.tile_data.assign(8192, 10);
  s.pdpte = {1, 2, 3, 4}, s.pdpte_valid = true;
  s.smm = {.active = true, .pending = true, .inside_nmi = true, .latched_init = true, .smbase = 0xa'0000};
  s.machine_check = {.mcg_status = 4, .ctl = 1, .status = 2, .addr = 3, .misc = 4};
  s.last_branch = {.debug_ctl = 1, .branch_from = 2, .branch_to = 3, .exception_from = 4, .exception_to = 5};
  s.hwcr = 0x40, s.pvclock_system_time = 0x1001, s.pvclock_wall_clock = 0x2000;
  s.other_msrs = {{0x140, 1}, {0xc000'0104, 2}};
  VcpuState back;
  state::Problems problems;
  ASSERT_TRUE(state::load_record(back, state::save_record(s), "", {"cpu/0", 2, problems})) << problems.front().text();
  EXPECT_EQ(back, s);
}

}  // namespace
