// Holding, thawing and running a KVM machine; its time is in time.cpp.
#include "cpu/kvm/engine.hpp"

#include <fmt/format.h>
#include "base/log.hpp"
#include "cpu/kvm/kvm_abi.hpp"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

namespace stasis::kvm {
namespace {

constexpr u64 kSoon = 2 * kMillisecond;

int kick_signal() { return SIGRTMIN; }

// A signal without a handler of its own would end the process; this one only ends KVM_RUN.
void install_handler() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ::sigaction(kick_signal(), &action, nullptr);
}

}  // namespace

Result<std::unique_ptr<KvmEngine>> KvmEngine::create(System system, const KvmBoard& board) {
  std::unique_ptr<KvmEngine> engine(new KvmEngine(std::move(system), board));
  STASIS_TRY_SET(Vm vm, Vm::create(engine->system_, board.memory));
  engine->vm_ = std::make_unique<Vm>(std::move(vm));
  STASIS_TRY(engine->make_vcpus());
  engine->wake_ = FileDescriptor(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (engine->wake_.get() < 0) return fail_errno("kvm", "eventfd", errno);
  install_handler();
  engine->start_threads();
  return engine;
}

Result<> KvmEngine::make_vcpus() {
  for (u32 id = 0; id < board_.cpus; ++id) {
    STASIS_TRY_SET(Vcpu vcpu, Vcpu::create(*vm_, board_.contract, id));
    workers_.push_back(std::make_unique<Worker>(std::move(vcpu)));
    states_.push_back(VcpuState{.activity = id == 0 ? Activity::running : Activity::wait_for_sipi});
    apics_.push_back(LocalApic::power_on(id));
  }
  return {};
}

void KvmEngine::start_threads() {
  for (auto& worker : workers_) worker->thread = std::thread([this, &worker = *worker] { work(worker); });
  Lock lock(mutex_);
  parked_.wait(lock, [&] { return std::ranges::all_of(workers_, [](const auto& w) { return w->parked; }); });
}

KvmEngine::~KvmEngine() {
  {
    if (!lock_.owns_lock()) lock_.lock();
    quit_ = true;
    stop_ = true;
    for (auto& worker : workers_) prod(*worker);
    go_.notify_all();
    lock_.unlock();
  }
  for (auto& worker : workers_)
    if (worker->thread.joinable()) worker->thread.join();
}

// ---- held and running -------------------------------------------------------------------------------------------

void KvmEngine::set(const VcpuState& state, u32 vcpu) {
  states_[vcpu] = state;
  workers_[vcpu]->changed = true;
  if (vcpu == 0) failure_.clear(), reason_ = StopReason::count;
}

LocalApicState KvmEngine::get_apic(u32 vcpu) const {
  LocalApicState state = apics_[vcpu];
  if (vcpu == 0) state.lint0 = intr_;
  return state;
}

void KvmEngine::prod(Worker& worker) {
  worker.vcpu.run_page().immediate_exit = 1;
  if (worker.started) ::pthread_kill(worker.handle, kick_signal());
}

// Numbers of the vCPUs whose threads are gone: somebody ended them, and they will never park.
std::string KvmEngine::ended_vcpus() const {
  std::string ended;
  for (const auto& worker : workers_)
    if (worker->started && ::syscall(SYS_tgkill, ::getpid(), worker->id, 0) < 0 && errno == ESRCH)
      ended += fmt::format("{}{}", ended.empty() ? "" : ", ", worker->vcpu.id());
  return ended;
}

Result<> KvmEngine::wait_parked(Lock& lock) {
  if (const std::string ended = ended_vcpus(); !ended.empty())
    return fail(ErrorCode::host, "kvm", fmt::format("the thread of vCPU {} has ended", ended), "resume the guest from its last snapshot");
  const auto all_parked = [&] { return std::ranges::all_of(workers_, [](const auto& w) { return w->parked; }); };
  for (auto& worker : workers_)
    if (!worker->parked) prod(*worker);
  if (parked_.wait_for(lock, std::chrono::nanoseconds(board_.stop_limit_ns), all_parked)) return {};
  std::string late;
  for (const auto& worker : workers_)
    if (!worker->parked) late += fmt::format("{}{}", late.empty() ? "" : ", ", worker->vcpu.id());
  return fail(ErrorCode::busy, "kvm", fmt::format("vCPU {} did not stop within {} ms", late, board_.stop_limit_ns / kMillisecond),
              "the guest runs on; try again when the host is less busy");
}

void KvmEngine::release() {
  stop_ = false;
  for (auto& worker : workers_) worker->vcpu.run_page().immediate_exit = 0;
  go_.notify_all();
}

Result<> KvmEngine::hold() {
  if (held_) return {};
  auto stopped = stop();
  if (!stopped && !attention_ && reason_ == StopReason::count) release();  // else no other goes on past what stopped it
  return stopped;
}

Result<> KvmEngine::stop() {
  if (!lock_.owns_lock()) lock_.lock();
  stop_ = true;
  STASIS_TRY(wait_parked(lock_));
  STASIS_TRY(freeze());
  held_ = true;
  lock_.unlock();
  return {};
}

// A device asked for it, or a vCPU met its end. One that is late is waited for again by the next run(), and until then no other
// goes on; any other failure is the machine's.
StopReason KvmEngine::stop_for_attention() {
  if (auto stopped = stop(); !stopped) {
    if (stopped.error().code == ErrorCode::busy) return log::warning("{}; the others wait for it", stopped.error().message), StopReason::count;
    if (reason_ != StopReason::failed) failure_ = stopped.error().text();
    return reason_ = StopReason::failed;
  }
  return std::exchange(attention_, false) && reason_ == StopReason::count ? StopReason::attention : reason_;
}

// The instant is taken once; what is read from the kernel after it is put in relation to it.
Result<> KvmEngine::freeze() {
  advance_clock();
  const u64 ticks = system_.kernel->time_stamp();
  const u64 now = std::max(board_.clock.now(), guest_time_at(ticks));
  board_.clock.advance_to(now);
  std::vector<VcpuState> states = states_;
  std::vector<LocalApicState> apics = apics_;
  std::vector<u64> offsets;
  for (u32 id = 0; id < vcpus(); ++id) {
    Worker& worker = *workers_[id];
    STASIS_TRY_SET(const u64 offset, worker.vcpu.kernel_tsc_offset());
    offsets.push_back(offset);
    states[id].tsc_offset += offset - worker.kernel_offset;  // the guest wrote its TSC
  }
  STASIS_TRY_SET(const u64 ahead, tsc_ahead(ticks, offsets[0], mul_div(now, board_.contract.tsc_hz, kSecond) + states[0].tsc_offset));
  for (u32 id = 0; id < vcpus(); ++id) {
    Worker& worker = *workers_[id];
    states[id].tsc_offset += ahead;
    STASIS_TRY(worker.vcpu.read(states[id]));
    Instant at = instant(id);
    at.guest_ns = guest_now();
    at.tsc_offset = states[id].tsc_offset;
    STASIS_TRY(worker.vcpu.read_apic(apics[id], at));
    if (apics[id].timer_armed) apics[id].timer_origin_ns += guest_now() - at.guest_ns;  // the count is of a moment in between: never early
  }
  const u64 before_clock = guest_now();
  STASIS_TRY_SET(const Vm::ClockReading clock, vm_->clock());
  board_.pvclock.offset_ns = clock.ns - (clock.host_tsc ? guest_time_at(clock.host_tsc) : before_clock);
  for (u32 id = 0; id < vcpus(); ++id) workers_[id]->kernel_offset = offsets[id];
  states_ = std::move(states);
  apics_ = std::move(apics);
  base_ns_ = now;
  base_ticks_ = ticks;
  return {};
}

Result<> KvmEngine::write_changed() {
  for (u32 id = 0; id < vcpus(); ++id) {
    Worker& worker = *workers_[id];
    if (!worker.changed) continue;
    STASIS_TRY(worker.vcpu.write(states_[id]));
    worker.changed = false;
  }
  return {};
}

Result<> KvmEngine::load() {
  STASIS_ASSERT(held_);
  STASIS_TRY(write_changed());
  base_ns_ = board_.clock.now();
  base_ticks_ = system_.kernel->time_stamp();
  return set_time(base_ticks_);
}

Result<VcpuState> KvmEngine::kernel_state(u32 vcpu) const {
  STASIS_ASSERT(held_);
  VcpuState state = states_[vcpu];
  STASIS_TRY(workers_[vcpu]->vcpu.read(state));
  return state;
}

Result<LocalApicState> KvmEngine::kernel_apic(u32 vcpu) const {
  STASIS_ASSERT(held_);
  LocalApicState state;
  Instant at = instant(vcpu);
  at.guest_ns = guest_now();
  STASIS_TRY(workers_[vcpu]->vcpu.read_apic(state, at));
  return state;
}

Result<> KvmEngine::thaw() {
  STASIS_TRY(load());
  held_ = false;
  release();
  return {};
}

Result<> KvmEngine::track_writes(bool on) {
  STASIS_ASSERT(held_);
  STASIS_TRY(vm_->log_dirty(on));
  board_.memory.track_writes(on);
  return {};
}

Result<> KvmEngine::collect_writes(std::span<u64> pages) {
  STASIS_ASSERT(held_);
  STASIS_TRY(vm_->collect_dirty());
  board_.memory.take_written(pages);
  return {};
}

// ---- running ----------------------------------------------------------------------------------------------------

StopReason KvmEngine::run(u64 until_retired) {
  if (held_) {
    if (reason_ != StopReason::count) return reason_;
    if (std::exchange(attention_, false)) return StopReason::attention;
    lock_.lock();
    if (auto thawed = thaw(); !thawed) {
      lock_.unlock();
      failure_ = thawed.error().text();
      return reason_ = StopReason::failed;
    }
  } else {  // whoever asks to return again and again must not keep the vCPU threads from their devices
    lock_.unlock();
    std::this_thread::yield();
    lock_.lock();
  }
  const u64 span = until_retired - retired(), began = guest_now();
  const u64 end = span > Clock::kNever - began ? Clock::kNever - 1 : began + span;
  for (;;) {
    advance_clock();
    const u64 now = board_.clock.now();
    if (const std::string ended = ended_vcpus(); !ended.empty()) stop_with(StopReason::failed, fmt::format("the thread of vCPU {} has ended", ended));
    if (attention_ || reason_ != StopReason::count) return stop_for_attention();
    if (kicked_.exchange(false)) return StopReason::attention;
    if (now >= end || now >= due_) {
      due_ = Clock::kNever;
      return StopReason::count;
    }
    sleeps_until_ = std::min({end, due_, board_.clock.next_alarm()});
    sleep(sleeps_until_ - std::min(sleeps_until_, now));
  }
}

// Devices are everybody's meanwhile. A wake() at any moment ends the next sleep at once.
void KvmEngine::sleep(u64 nanoseconds) {
  lock_.unlock();
  const u64 most = std::min(nanoseconds, kSecond);
  const timespec span{.tv_sec = static_cast<time_t>(most / kSecond), .tv_nsec = static_cast<long>(most % kSecond)};
  pollfd waiting{.fd = wake_.get(), .events = POLLIN, .revents = 0};
  u64 ignored;
  if (::ppoll(&waiting, 1, &span, nullptr) == 1 && ::read(wake_.get(), &ignored, sizeof ignored) < 0) std::this_thread::yield();
  lock_.lock();
}

void KvmEngine::wake() {
  const u64 one = 1;
  if (::write(wake_.get(), &one, sizeof one) < 0) return;  // full: it is readable already
}

void KvmEngine::kick() {
  kicked_ = true;
  wake();
}

void KvmEngine::soon() {
  if (due_ != Clock::kNever) return;
  due_ = board_.clock.now() + kSoon;
  if (due_ < sleeps_until_) wake();
}

void KvmEngine::after_device_access() {
  if (attention_) {
    stop_ = true;
    for (auto& worker : workers_)
      if (!worker->parked) prod(*worker);
  }
  if (attention_ || reason_ != StopReason::count || board_.clock.next_alarm() < sleeps_until_) wake();
}

// ---- interrupts -------------------------------------------------------------------------------------------------

void KvmEngine::deliver(u64 address, u32 data) {
  if (held_) return deliver_held(address, data);
  if (auto sent = vm_->send_message(address, data); !sent) stop_with(StopReason::failed, sent.error().text());
}

// While held the saved form takes the message, as the soft engine's local APIC would.
void KvmEngine::deliver_held(u64 address, u32 data) {
  constexpr u32 kLowestPriority = 1;
  struct Signals final : CpuSignals {
    bool nmi_seen = false;
    void nmi() override { nmi_seen = true; }
    void init() override {}
    void startup(u8) override {}
  };
  for (u32 id = 0; id < vcpus(); ++id) {
    Signals signals;
    LocalApic model(board_.clock, id, board_.contract.tsc_hz);
    model.restore(apics_[id]);
    model.connect(&signals);
    model.deliver(address, data);
    states_[id].nmi_pending |= signals.nmi_seen;
    workers_[id]->changed |= signals.nmi_seen;
    const bool taken = !(model.state() == apics_[id]);
    apics_[id] = model.state();
    if (taken && (data >> 8 & 7) == kLowestPriority) return;
  }
}

void KvmEngine::set_intr(bool level) {
  const bool rises = level && !intr_.exchange(level);
  if (!level) intr_ = false;
  if (!rises || held_) return;
  Worker& first = *workers_[0];
  if (first.handle != ::pthread_self() || !first.started) prod(first);
}

void KvmEngine::pins_changed(std::span<const u64> redirection) {
  constexpr u64 kLevel = 1u << 15;
  std::vector<Vm::Route> routes(Vm::kPins);
  for (unsigned pin = 0; pin < Vm::kPins; ++pin) {
    const u64 entry = redirection[pin];
    if (!(entry & kLevel) || (entry >> 8 & 7) > 1) continue;
    routes[pin] = {.address = 0xfee0'0000 | (entry >> 56) << 12 | (entry >> 11 & 1) << 2, .data = static_cast<u32>(entry & 0x7ff) | 0xc000};
  }
  if (auto set = vm_->set_routes(routes); !set) stop_with(StopReason::failed, set.error().text());
}

}  // namespace stasis::kvm
