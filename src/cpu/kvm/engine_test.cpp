// The KVM engine against a KVM of our own: state in and out, threads that stop or do not, and every call failing in turn.
#include "cpu/kvm/engine.hpp"

#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>

#include "cpu/checks.hpp"
#include "cpu/kvm/fake_kernel.hpp"
#include "cpu/msr_table.hpp"

namespace stasis::kvm {
namespace {

constexpr u64 kForever = ~0ull;

struct Rig {
  explicit Rig(u32 cpus_wanted = 1) : cpus(cpus_wanted) { contract.tsc_hz = 2'000'000'000; }
  Result<> make() {
    STASIS_TRY_SET(System system, System::open(kernel));
    STASIS_TRY_SET(engine, KvmEngine::create(std::move(system), {.memory = memory, .ports = ports, .mmio = mmio, .clock = clock, .pvclock = pvclock,
                                                                 .contract = contract, .cpus = cpus, .start_time = start_time, .stop_limit_ns = stop_limit_ns}));
    engine->connect({.pic_acknowledge = [this] { return ++acknowledged, u8{0x30}; }, .eoi = [this](u8 vector) { ended.push_back(vector); }});
    return {};
  }
  // Lets the guest run until somebody kicks.
  StopReason run_kicked() {
    std::thread kicker([this] { engine->kick(); });
    const StopReason reason = engine->run(kForever);
    kicker.join();
    return reason;
  }
  u32 cpus;
  u64 start_time = 0;
  u64 stop_limit_ns = 20 * kSecond;  // a busy host is no failure
  std::shared_ptr<FakeKernel> kernel = std::make_shared<FakeKernel>();
  GuestMemory memory = *GuestMemory::create(2 * kMiB);
  PortBus ports;
  MmioBus mmio;
  Clock clock;
  PvclockState pvclock;
  CpuContract contract = default_cpu_contract(1);
  unsigned acknowledged = 0;
  std::vector<u8> ended;
  std::unique_ptr<KvmEngine> engine;
};

struct Echo final : PortDevice {
  u32 port_read(u16, unsigned) override { return 0x5a; }
  void port_write(u16 port, unsigned, u32 value) override { seen.emplace_back(port, value); }
  std::vector<std::pair<u16, u32>> seen;
};

VcpuState busy_state() {
  VcpuState s;
  for (unsigned i = 0; i < 16; ++i) s.gpr[i] = 0x1111'0000'0000ull * i + i;
  s.rip = 0x1000, s.rflags = 0x246, s.cr0 = 0x8001'0033, s.cr2 = 0xdead, s.cr3 = 0x1000, s.cr4 = 0x620, s.efer = 0xd01;
  s.cs = {.selector = 8, .attributes = 0xa9b, .limit = ~0u, .base = 0};
  s.dr = {1, 2, 3, 4}, s.dr6 = 0xffff'4ff0, s.dr7 = 0x401;
  s.sysenter_cs = 8, s.sysenter_esp = 0x2000, s.pat = 0x0007'0406'0007'0400, s.star = 0x23'0010'0000'0000, s.lstar = 0x4000, s.spec_ctrl = 1;
  s.fpu.fcw = 0x37f, s.fpu.ftw = 0x80, s.fpu.st[0] = {1, 2, 3, 4, 5, 6, 7, 0x80, 0xff, 0x3f}, s.fpu.xmm[15].fill(0xab);
  s.nmi_pending = s.nmi_blocked = true;
  s.shadow = InterruptShadow::sti;
  s.pending = {.valid = true, .vector = 0x31, .type = EventType::interrupt};
  s.exception = {.valid = true, .vector = 14, .has_error_code = true, .error_code = 2, .type = EventType::exception, .has_payload = true, .payload = 0x7000};
  s.activity = Activity::halted;
  return s;
}

TEST(KvmEngine, what_is_set_comes_back_from_the_kernel) {
  Rig rig(2);
  ASSERT_TRUE(rig.make());
  const VcpuState wanted = busy_state();
  LocalApicState apic = LocalApic::power_on(1);
  apic.svr = 0x1ff, apic.irr[2] = 0x10, apic.lvt_timer = 0x2'00ec, apic.timer_initial = 5'000'000, apic.timer_armed = true;
  rig.engine->set(wanted, 1);
  rig.engine->set_apic(apic, 1);
  ASSERT_TRUE(rig.engine->load());
  EXPECT_EQ(rig.run_kicked(), StopReason::attention);
  ASSERT_TRUE(rig.engine->hold());
  VcpuState got = rig.engine->get(1);
  got.mtrr = wanted.mtrr, got.misc_enable = wanted.misc_enable, got.smm = wanted.smm;  // not in the fake's list
  EXPECT_EQ(got, wanted);
  const LocalApicState back = rig.engine->get_apic(1);
  EXPECT_EQ(back.irr, apic.irr);
  EXPECT_EQ(back.lvt_timer, apic.lvt_timer);
  EXPECT_TRUE(back.timer_armed);
}

TEST(KvmEngine, defect_01_x87_sse_and_avx_registers_reach_the_kernel_and_come_back) {
  Rig rig;
  for (CpuidLeaf& leaf : rig.contract.cpuid)
    if (leaf.leaf == 1) leaf.ecx |= 1u << 26;  // XSAVE
  rig.contract.cpuid.push_back({.leaf = 0xd, .eax = 7});
  std::ranges::sort(rig.contract.cpuid, {}, [](const CpuidLeaf& l) { return u64{l.leaf} << 32 | l.subleaf; });
  kvm_cpuid_entry2 avx{}, keys{};
  avx.function = 0xd, avx.index = 2, avx.eax = 256, avx.ebx = 576;
  keys.function = 0xd, keys.index = 9, keys.eax = 8, keys.ebx = 2688;
  rig.kernel->cpuid = {avx, keys};
  ASSERT_TRUE(rig.make());
  VcpuState wanted = busy_state();
  wanted.xsave = {.xcr0 = 7, .in_use = 7};
  for (unsigned i = 0; i < 16; ++i) wanted.fpu.xmm[i].fill(static_cast<u8>(i + 1)), wanted.xsave.ymm_high[i].fill(static_cast<u8>(0x80 + i));
  for (unsigned i = 0; i < 8; ++i) wanted.fpu.st[i].fill(static_cast<u8>(0x40 + i));
  rig.engine->set(wanted);
  ASSERT_TRUE(rig.engine->load());
  rig.kernel->vcpus[0].xcrs.nr_xcrs = 1;
  const auto& area = rig.kernel->vcpus[0].xsave;
  EXPECT_EQ(area[32], 0x40) << "ST(0)";
  EXPECT_EQ(area[160 + 15 * 16], 16) << "XMM15";
  EXPECT_EQ(area[576 + 15 * 16], 0x8f) << "the upper half of YMM15";
  rig.kernel->vcpus[0].xsave[512 + 1] |= 2;  // PKRU, which the guest was not shown: an older KVM tells of it
  EXPECT_EQ(rig.run_kicked(), StopReason::attention);
  ASSERT_TRUE(rig.engine->hold());
  EXPECT_EQ(rig.engine->get().fpu, wanted.fpu);
  EXPECT_EQ(rig.engine->get().xsave, wanted.xsave);
}

TEST(KvmEngine, defect_02_each_pending_event_reaches_the_kernel_and_comes_back) {
  const auto with = [](auto change) { VcpuState s; change(s); return s; };
  const PendingEventState interrupt{.valid = true, .vector = 0x31, .type = EventType::interrupt}, software{.valid = true, .vector = 0x80, .type = EventType::software},
      nmi{.valid = true, .vector = 2, .type = EventType::nmi}, fault{.valid = true, .vector = 13, .has_error_code = true, .error_code = 0x18, .type = EventType::exception},
      page_fault{.valid = true, .vector = 14, .has_error_code = true, .error_code = 2, .type = EventType::exception, .has_payload = true, .payload = 0x7000};
  std::vector<VcpuState> all{with([](VcpuState& s) { s.nmi_pending = true; }), with([](VcpuState& s) { s.nmi_blocked = true; }),
                             with([](VcpuState& s) { s.shadow = InterruptShadow::sti; }), with([](VcpuState& s) { s.shadow = InterruptShadow::mov_ss; }),
                             with([&](VcpuState& s) { s.exception = page_fault; })};
  for (const PendingEventState& event : {interrupt, software, nmi, fault}) all.push_back(with([&](VcpuState& s) { s.pending = event; }));
  for (std::size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE(i);
    Rig rig;
    ASSERT_TRUE(rig.make());
    rig.engine->set(all[i]);
    ASSERT_TRUE(rig.engine->load());
    EXPECT_EQ(rig.run_kicked(), StopReason::attention);
    ASSERT_TRUE(rig.engine->hold());
    const VcpuState got = rig.engine->get();
    EXPECT_EQ(got.pending, all[i].pending);
    EXPECT_EQ(got.exception, all[i].exception);
    EXPECT_EQ(got.nmi_pending, all[i].nmi_pending);
    EXPECT_EQ(got.nmi_blocked, all[i].nmi_blocked);
    EXPECT_EQ(got.shadow, all[i].shadow);
  }
}

TEST(KvmEngine, a_vcpu_whose_thread_was_ended_is_named_at_once) {
  Rig rig(2);
  rig.kernel->guest = [](u32 id, FakeKernel::Vcpu& v) -> long {
    if (id == 1) ::pthread_exit(nullptr);
    return FakeKernel::spin(v);
  };
  ASSERT_TRUE(rig.make());
  EXPECT_EQ(rig.engine->run(kForever), StopReason::failed);
  EXPECT_NE(rig.engine->failure().find("vCPU 1 has ended"), std::string::npos) << rig.engine->failure();
  const auto held = rig.engine->hold();
  ASSERT_FALSE(held);
  EXPECT_NE(held.error().text().find("vCPU 1 has ended"), std::string::npos) << held.error().text();
}

TEST(KvmEngine, time_stands_still_while_held) {
  Rig rig;
  ASSERT_TRUE(rig.make());
  EXPECT_EQ(rig.run_kicked(), StopReason::attention);
  ASSERT_TRUE(rig.engine->hold());
  const u64 then = rig.clock.now();
  EXPECT_GT(then, 0u);
  const u64 tsc = mul_div(then, rig.contract.tsc_hz, kSecond) + rig.engine->get().tsc_offset;
  for (int i = 0; i < 1000; ++i) rig.kernel->time_stamp();  // a long save
  EXPECT_EQ(rig.clock.now(), then);
  ASSERT_TRUE(rig.engine->load());
  // The kernel's offset takes the pause out: host TSC + offset continues where the guest's stood.
  EXPECT_LT(rig.kernel->vcpus[0].tsc_offset + rig.kernel->time_stamp() - tsc, 100'000u);
}

// A host whose TSC is 200 ppm faster than the guest was shown, and one that scales, in whole kHz and with an error of its own.
struct TscRates {
  long host_khz;
  u64 contract_hz;
  bool scaling;
};
class KvmTsc : public testing::TestWithParam<TscRates> {};

TEST_P(KvmTsc, goes_on_where_it_was_and_never_back) {
  const auto [host_khz, contract_hz, scaling] = GetParam();
  Rig rig(2);
  rig.contract.tsc_hz = contract_hz;
  rig.kernel->tsc_khz = host_khz;
  rig.kernel->tsc_control = scaling;
  rig.kernel->ticks = 1'000'000'000'000'000;  // up for days
  ASSERT_TRUE(rig.make());
  rig.kernel->guest = [&](u32, FakeKernel::Vcpu& vcpu) { return rig.kernel->ticks += 500'000'000'000, FakeKernel::spin(vcpu); };  // minutes
  rig.clock.restore(kSecond);
  rig.engine->set({.tsc_offset = 7'000}, 0);
  rig.engine->set({.tsc_offset = 9'000}, 1);
  const auto tsc = [&](u32 vcpu) { return rig.kernel->guest_tsc(rig.kernel->vcpus[vcpu]); };
  constexpr u64 kSoon = 200'000;  // ticks that the calls in between take
  LocalApicState apic = LocalApic::power_on(0);
  apic.svr = 0x1ff, apic.lvt_timer = 0x4'00ec, apic.deadline = 1'000'000 * contract_hz;
  rig.engine->set_apic(apic, 0);
  u64 last = contract_hz + 7'000;
  for (unsigned round = 0; round < 3; ++round) {
    ASSERT_TRUE(rig.engine->load());
    EXPECT_GE(tsc(0), last) << round;
    EXPECT_LE(tsc(0), last + kSoon) << round;
    EXPECT_EQ(tsc(1), tsc(0) + 2'000) << round;
    EXPECT_EQ(rig.run_kicked(), StopReason::attention);
    const u64 before = tsc(0);
    ASSERT_TRUE(rig.engine->hold());
    last = mul_div(rig.clock.now(), contract_hz, kSecond) + rig.engine->get(0).tsc_offset;
    EXPECT_GE(last + kSoon / 10, before) << round;
    EXPECT_LE(last, tsc(0)) << round;
    const LocalApicState saved = rig.engine->get_apic(0);
    EXPECT_EQ(saved.deadline, apic.deadline);
    EXPECT_EQ(saved.deadline_ns, LocalApic::deadline_time(apic.deadline, rig.engine->get(0).tsc_offset, rig.clock.now(), contract_hz)) << "the soft engine's alarm";
    last -= kSoon / 10;  // as well as a scaled TSC can be read
  }
}
INSTANTIATE_TEST_SUITE_P(Hosts, KvmTsc, testing::Values(TscRates{2'000'000, 2'000'000'000, false}, TscRates{2'000'400, 2'000'000'000, false},
                                                         TscRates{1'999'600, 2'000'000'000, false}, TscRates{3'000'017, 2'000'000'500, true}));

TEST(KvmEngine, port_exits_reach_the_bus_through_a_storm_of_signals) {
  Rig rig;
  Echo echo;
  rig.ports.map(0x80, 0x80, echo);
  int step = 0;
  rig.kernel->guest = [&](u32, FakeKernel::Vcpu& v) -> long {
    if (++step < 500) return -EINTR;
    if (step > 503) return FakeKernel::spin(v);
    kvm_run& run = v.run();
    run.exit_reason = KVM_EXIT_IO;
    run.io = {.direction = KVM_EXIT_IO_OUT, .size = 1, .port = 0x80, .count = 2, .data_offset = 2048};
    v.page[2048] = static_cast<u8>(step), v.page[2049] = 7;
    return 0;
  };
  ASSERT_TRUE(rig.make());
  while (step < 504) EXPECT_EQ(rig.run_kicked(), StopReason::attention);
  ASSERT_TRUE(rig.engine->hold());
  EXPECT_EQ(echo.seen.size(), 8u);
}

TEST(KvmEngine, defect_20_a_vcpu_that_does_not_stop_is_named_and_the_guest_runs_on) {
  Rig rig(2);
  rig.stop_limit_ns = 500 * kMillisecond;
  std::atomic<bool> stubborn{true};
  std::atomic<int> entered{0};
  rig.kernel->guest = [&](u32 id, FakeKernel::Vcpu& v) -> long {
    ++entered;
    while (id == 1 && stubborn) std::this_thread::yield();
    return FakeKernel::spin(v);
  };
  ASSERT_TRUE(rig.make());
  while (entered < 2) rig.run_kicked();
  const auto held = rig.engine->hold();
  ASSERT_FALSE(held);
  EXPECT_NE(held.error().message.find("vCPU 1 did not stop"), std::string::npos) << held.error().text();
  const int before = entered;
  while (entered == before) rig.run_kicked();  // vCPU 0 goes on
  stubborn = false;
  EXPECT_TRUE(rig.engine->hold());
}

TEST(KvmEngine, what_a_device_asks_for_waits_for_a_vcpu_that_is_late) {
  struct Asks final : PortDevice {
    u32 port_read(u16, unsigned) override { return 0; }
    void port_write(u16, unsigned, u32) override { ++writes, engine->attention(); }
    int writes = 0;
    KvmEngine* engine = nullptr;
  } device;
  Rig rig(2);
  rig.stop_limit_ns = 200 * kMillisecond;
  rig.ports.map(0x80, 0x80, device);
  std::atomic<bool> stubborn{true}, entered{false};
  rig.kernel->guest = [&](u32 id, FakeKernel::Vcpu& v) -> long {
    entered = entered || id == 1;
    while (id == 1 && stubborn) std::this_thread::yield();
    while (!entered) std::this_thread::yield();
    if (id == 1 || v.run().immediate_exit) return FakeKernel::spin(v);
    v.run().exit_reason = KVM_EXIT_IO;
    v.run().io = {.direction = KVM_EXIT_IO_OUT, .size = 1, .port = 0x80, .count = 1, .data_offset = 2048};
    return 0;
  };
  ASSERT_TRUE(rig.make());
  device.engine = rig.engine.get();
  StopReason reason;
  while ((reason = rig.run_kicked()) == StopReason::attention && device.writes == 0) {}
  EXPECT_EQ(reason, StopReason::count) << "the late one is no failure: " << rig.engine->failure();
  EXPECT_FALSE(rig.engine->held());
  EXPECT_EQ(rig.engine->run(kForever), StopReason::count) << "it is late still";
  EXPECT_EQ(device.writes, 1) << "what asked ran on past it";
  EXPECT_FALSE(rig.engine->hold()) << "and for a save";
  EXPECT_EQ(rig.engine->run(kForever), StopReason::count);
  EXPECT_EQ(device.writes, 1) << "a save that failed let it run on";
  stubborn = false;
  for (unsigned i = 0; i < 100 && reason == StopReason::count; ++i) reason = rig.engine->run(kForever);  // 20 s
  EXPECT_EQ(reason, StopReason::attention);
  EXPECT_TRUE(rig.engine->held());
  EXPECT_EQ(device.writes, 1);
}

TEST(KvmEngine, a_crash_that_cannot_be_held_is_a_failure_and_no_endless_wait) {
  Rig rig;
  std::atomic<bool> fails{false};
  rig.kernel->guest = [&](u32, FakeKernel::Vcpu& v) -> long {
    fails = true;
    v.run().exit_reason = KVM_EXIT_SHUTDOWN;
    return 0;
  };
  rig.kernel->refuses = [&](unsigned long request, const void*) { return fails && request == KVM_GET_CLOCK; };
  ASSERT_TRUE(rig.make());
  while (!fails) rig.run_kicked();
  StopReason reason = StopReason::count;
  for (unsigned i = 0; i < 1000 && reason != StopReason::failed; ++i) {
    reason = rig.run_kicked();
    std::this_thread::sleep_for(std::chrono::milliseconds(reason == StopReason::failed ? 0 : 20));
  }
  EXPECT_EQ(reason, StopReason::failed);
  EXPECT_NE(rig.engine->failure().find("KVM_GET_CLOCK"), std::string::npos) << rig.engine->failure();
}

TEST(KvmEngine, an_interrupt_of_the_8259_is_injected_when_the_guest_takes_it) {
  Rig rig;
  std::atomic<bool> took{false};
  rig.kernel->guest = [&](u32, FakeKernel::Vcpu& v) -> long {
    took = v.events.interrupt.injected && v.events.interrupt.nr == 0x30;
    v.run().ready_for_interrupt_injection = v.run().if_flag = 1;
    if (!v.run().request_interrupt_window) return FakeKernel::spin(v);
    v.run().exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
    return 0;
  };
  ASSERT_TRUE(rig.make());
  rig.run_kicked();
  rig.engine->set_intr(true);
  while (!took) rig.run_kicked();
  rig.engine->set_intr(false);
  ASSERT_TRUE(rig.engine->hold());
  EXPECT_GT(rig.acknowledged, 0u);
  EXPECT_EQ(rig.engine->get().pending.vector, 0x30);
}

TEST(KvmEngine, an_interrupt_of_the_8259_wakes_a_processor_that_was_saved_halted) {
  Rig rig;
  std::atomic<bool> took{false};
  rig.kernel->guest = [&](u32, FakeKernel::Vcpu& v) -> long {  // a halted one opens no window
    took = v.activity.mp_state == KVM_MP_STATE_RUNNABLE && v.events.interrupt.injected;
    return FakeKernel::spin(v);
  };
  ASSERT_TRUE(rig.make());
  VcpuState state;
  state.rflags = 0x202, state.activity = Activity::halted;
  rig.engine->set(state);
  rig.engine->set_intr(true);
  for (int turn = 0; turn < 1000 && !took; ++turn) rig.run_kicked();
  EXPECT_TRUE(took);
}

TEST(KvmEngine, what_a_page_says_of_the_state_before_is_not_believed) {
  Rig rig;
  std::atomic<bool> injected{false};
  rig.kernel->guest = [&](u32, FakeKernel::Vcpu& v) -> long {
    injected = injected || v.events.interrupt.injected;
    v.run().ready_for_interrupt_injection = v.run().if_flag = 1;  // and then the machine is reset
    return FakeKernel::spin(v);
  };
  ASSERT_TRUE(rig.make());
  VcpuState state;
  state.rflags = 0x202;
  rig.engine->set(state);
  rig.run_kicked();
  ASSERT_TRUE(rig.engine->hold());
  state.rflags = 2;
  rig.engine->set(state);
  rig.engine->set_intr(true);
  rig.kernel->guest = [&](u32, FakeKernel::Vcpu& v) -> long {
    injected = injected || v.events.interrupt.injected;
    return FakeKernel::spin(v);
  };
  for (int turn = 0; turn < 5; ++turn) rig.run_kicked();
  EXPECT_FALSE(injected);
}

TEST(KvmEngine, a_processor_that_crashed_is_not_entered_again) {
  Rig rig;
  std::atomic<int> entered{0};
  rig.kernel->guest = [&](u32, FakeKernel::Vcpu& v) -> long {
    ++entered;
    v.run().exit_reason = KVM_EXIT_SHUTDOWN;
    return 0;
  };
  ASSERT_TRUE(rig.make());
  EXPECT_EQ(rig.engine->run(kForever), StopReason::shutdown);
  EXPECT_TRUE(rig.engine->ended());
  EXPECT_EQ(entered, 1);
}

TEST(KvmEngine, a_message_that_comes_while_held_is_in_the_saved_form) {
  Rig rig;
  ASSERT_TRUE(rig.make());
  LocalApicState apic = rig.engine->get_apic();
  apic.svr = 0x1ff;
  rig.engine->set_apic(apic);
  rig.engine->messages().deliver(0xfee0'0000, 0x4041);
  EXPECT_EQ(rig.engine->get_apic().irr[2], 2u);
  EXPECT_TRUE(rig.kernel->messages.empty());
}

TEST(KvmEngine, a_message_to_a_processor_that_is_not_there_is_lost_and_the_guest_runs_on) {
  Rig rig;
  ASSERT_TRUE(rig.make());
  EXPECT_EQ(rig.run_kicked(), StopReason::attention);
  rig.engine->messages().deliver(0xfee0'5000, 0x41);
  ASSERT_EQ(rig.kernel->messages.size(), 1u);
  EXPECT_EQ(rig.run_kicked(), StopReason::attention) << rig.engine->failure();
  EXPECT_TRUE(rig.engine->hold());
}

TEST(KvmEngine, the_wall_clock_msr_is_restored_and_its_page_stays_the_guests) {
  constexpr u32 kWallClock = 0x4b56'4d00;
  constexpr u64 kPage = 0x5008;
  Rig rig(2);
  rig.kernel->msr_values[kWallClock] = 0;
  ASSERT_TRUE(rig.make());
  const std::array<u8, 16> page{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  ASSERT_TRUE(rig.memory.write(kPage, page));
  VcpuState state;
  state.pvclock_wall_clock = kPage;
  rig.engine->set(state, 0);
  ASSERT_TRUE(rig.engine->load());
  EXPECT_EQ(rig.kernel->vcpus[0].msrs[kWallClock], kPage);
  std::array<u8, 16> there{};
  ASSERT_TRUE(rig.memory.read(kPage, there));
  EXPECT_EQ(there, page);
}

TEST(KvmEngine, the_wall_clock_is_the_machines_and_not_the_hosts) {
  constexpr u32 kWallClock = 0x4b56'4d00;
  constexpr u64 kPage = 0x5008;
  Rig rig;
  rig.kernel->msr_values[kWallClock] = 0;
  rig.start_time = 1'750'000'000;
  rig.pvclock.offset_ns = -(3 * kSecond + 5);  // system time 0 was 3 s and 5 ns after the machine's start
  std::vector<u32> left_to_us;
  rig.kernel->refuses = [&](unsigned long request, const void* argument) {
    if (request != KVM_X86_SET_MSR_FILTER) return false;
    const auto& filter = *static_cast<const kvm_msr_filter*>(argument);
    for (const kvm_msr_filter_range& range : filter.ranges)
      if (range.nmsrs == 1 && range.flags == KVM_MSR_FILTER_WRITE && (*range.bitmap & 1) == 0) left_to_us.push_back(range.base);
    return false;
  };
  std::atomic<int> step{0};
  rig.kernel->guest = [&](u32, FakeKernel::Vcpu& v) -> long {
    if (step++ > 0) return FakeKernel::spin(v);
    v.run().exit_reason = KVM_EXIT_X86_WRMSR;
    v.run().msr.index = kWallClock, v.run().msr.data = kPage, v.run().msr.error = 1;
    return 0;
  };
  ASSERT_TRUE(rig.make());
  EXPECT_EQ(left_to_us, (std::vector<u32>{0x11, kWallClock}));
  while (step < 2) rig.run_kicked();
  EXPECT_EQ(rig.kernel->vcpus[0].run().msr.error, 0);
  EXPECT_EQ(rig.kernel->vcpus[0].msrs[kWallClock], kPage);
  std::array<u32, 3> there{};
  ASSERT_TRUE(rig.memory.read(kPage, {reinterpret_cast<u8*>(there.data()), sizeof there}));
  EXPECT_EQ(there, (std::array<u32, 3>{2, 1'750'000'003, 5}));
}

// The count reads 0 in both cases; nothing but the kernel's next entry tells an interrupt that the guest had from one that
// it has coming.
TEST(KvmEngine, a_one_shot_that_expired_and_was_not_delivered_is_requested_in_the_saved_form) {
  constexpr unsigned kInitial = 0x380, kCurrent = 0x390, kVector = 0xec;
  constexpr u32 kCount = 50'000'000;
  for (const bool before_the_stop : {true, false}) {
    Rig rig;
    std::atomic<bool> entered{false}, expired{false};
    const auto expire = [&](FakeKernel::Vcpu& v) {
      std::memcpy(v.lapic.regs + kInitial, &kCount, 4);
      std::memset(v.lapic.regs + kCurrent, 0, 4);
      v.timer_expired = true;
    };
    rig.kernel->guest = [&](u32, FakeKernel::Vcpu& v) -> long {
      entered = true;
      const long left = FakeKernel::spin(v);
      if (before_the_stop && !expired.exchange(true)) expire(v);
      return left;
    };
    ASSERT_TRUE(rig.make());
    LocalApicState apic = rig.engine->get_apic();
    apic.svr = 0x1ff, apic.lvt_timer = kVector;
    if (!before_the_stop) apic.timer_initial = kCount, apic.timer_armed = true;  // else the guest starts it
    rig.engine->set_apic(apic);
    while (!entered) rig.run_kicked();
    if (!before_the_stop) rig.kernel->when_reading = [&] { expire(rig.kernel->vcpus[0]); };
    ASSERT_TRUE(rig.engine->hold());
    const LocalApicState got = rig.engine->get_apic();
    EXPECT_EQ(got.irr[kVector / 32], 1u << kVector % 32) << before_the_stop;
    EXPECT_FALSE(got.timer_armed);
    // Once the guest has had it, it is not requested again.
    rig.kernel->when_reading = {};
    apic = got;
    apic.irr = {};
    rig.engine->set_apic(apic);
    rig.run_kicked();
    ASSERT_TRUE(rig.engine->hold());
    EXPECT_EQ(rig.engine->get_apic().irr, apic.irr);
  }
}

TEST(KvmEngine, every_call_that_fails_gives_a_clear_error_and_no_hang) {
  const auto life = [](Rig& rig) -> Result<> {
    STASIS_TRY(rig.make());
    STASIS_TRY(rig.engine->load());
    if (rig.run_kicked() == StopReason::failed) return fail(ErrorCode::host, "kvm", rig.engine->failure());
    STASIS_TRY(rig.engine->hold());
    return {};
  };
  Rig whole(2);
  ASSERT_TRUE(life(whole));
  const u64 calls = whole.kernel->calls;
  ASSERT_GT(calls, 50u);
  u64 refused = 0;
  for (u64 n = 1; n <= calls; ++n) {
    Rig rig(2);
    rig.kernel->fail_call = n;
    const auto result = life(rig);
    if (result) continue;  // a failure that is no matter: a probe for an MSR, a wake-up
    ++refused;
    EXPECT_FALSE(result.error().message.empty()) << n;
    EXPECT_TRUE(result.error().text().find("kvm") != std::string::npos) << result.error().text();
  }
  EXPECT_GT(refused, 60u);  // set-up, load, thaw and freeze; how often KVM_RUN is called beside them is the scheduler's
}

TEST(KvmSystem, an_absent_or_forbidden_device_is_told_apart) {
  Rig rig;
  rig.kernel->open_error = ENOENT;
  EXPECT_NE(rig.make().error().text().find("no KVM on this host"), std::string::npos);
  rig.kernel->open_error = EACCES;
  EXPECT_EQ(rig.make().error().code, ErrorCode::permission);
  rig.kernel->open_error = 0;
  rig.kernel->missing = {KVM_CAP_SREGS2, KVM_CAP_SPLIT_IRQCHIP};
  const std::string text = rig.make().error().text();
  EXPECT_NE(text.find("KVM_CAP_SREGS2"), std::string::npos) << text;
  EXPECT_NE(text.find("KVM_CAP_SPLIT_IRQCHIP"), std::string::npos) << text;
}

TEST(KvmSystem, auto_takes_hardware_only) {
  FakeKernel kernel;
  EXPECT_TRUE(choose(kernel).kvm);
  kernel.module_name = "kvm_pvm";
  EXPECT_FALSE(choose(kernel).kvm);
  EXPECT_NE(choose(kernel).why.find("kvm_pvm"), std::string::npos);
  kernel.module_name = "kvm_intel";
  kernel.open_error = EACCES;
  EXPECT_FALSE(choose(kernel).kvm);
}

// Where KVM is: nothing that it could show a guest is without a home.
TEST(KvmHost, every_msr_and_xsave_component_has_a_home) {
  const auto kernel = host_kernel();
  if (const Choice choice = choose(*kernel); !choice.kvm) GTEST_SKIP() << choice.why;
  const auto system = System::open(kernel);
  ASSERT_TRUE(system) << system.error().text();
  for (const u32 index : system->msrs) EXPECT_NE(find_msr(index), nullptr) << std::hex << "MSR 0x" << index;
  for (const CpuidLeaf& leaf : system->cpuid) {
    if (leaf.leaf != 0xd || leaf.subleaf != 0) continue;
    EXPECT_EQ(leaf.eax & ~XsaveState::kHeld, 0u) << "XSAVE components";
  }
}

}  // namespace
}  // namespace stasis::kvm
