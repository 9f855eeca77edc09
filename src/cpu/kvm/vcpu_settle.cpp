// The entry that does not enter: KVM does all that waits for the way in, finds a signal, and comes back (KVM_SET_SIGNAL_MASK).
#include <pthread.h>
#include <signal.h>

#include "cpu/kvm/kvm_abi.hpp"

#include <cerrno>
#include <cstring>
#include <ctime>

#include "cpu/kvm/vcpu.hpp"

namespace stasis::kvm {
namespace {

// Blocked in vCPU threads, but not while settle() enters: so it is waiting there when the kernel looks, and not lost before.
int turn_back_signal() { return SIGRTMIN + 1; }

sigset_t only_turn_back() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, turn_back_signal());
  return set;
}

// The kernel's own form of a set: 8 bytes, the first of the C library's.
struct SignalMask {
  u32 length = 8;
  std::array<u8, 8> set{};
};
static_assert(sizeof(SignalMask) == sizeof(kvm_signal_mask) + 8);

// KVM's count is 0 from the moment of expiry, but KVM knows of it only when its timer's interrupt has come to the host. This
// thread sleeps on a timer of the same clock and the same processor, due later: when that has come, so has KVM's.
void wait_for_earlier_timers() {
  timespec span{.tv_sec = 0, .tv_nsec = 1};
  while (::clock_nanosleep(CLOCK_MONOTONIC, 0, &span, &span) == EINTR) continue;
}

}  // namespace

void Vcpu::begin_thread() {
  const sigset_t set = only_turn_back();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

Result<long> Vcpu::settle() {
  const sigset_t mine = only_turn_back();
  sigset_t blocked;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
  ::sigdelset(&blocked, turn_back_signal());
  SignalMask mask;
  std::memcpy(mask.set.data(), &blocked, mask.set.size());
  STASIS_TRY(call("KVM_SET_SIGNAL_MASK", KVM_SET_SIGNAL_MASK, &mask));
  ::pthread_kill(::pthread_self(), turn_back_signal());
  long entered = 0;
  Result<u32> left = 0u;
  do {  // immediate_exit would turn back too early; who stops or kicks may set it at any moment
    run_->immediate_exit = 0;
    run_->request_interrupt_window = 0;
    if (left = timer_left(); !left) break;
    if (*left == 0) wait_for_earlier_timers();
    settled_left_ = *left;
    entered = enter();
  } while (entered == -EINTR && run_->immediate_exit);
  const timespec now{};
  while (::sigtimedwait(&mine, nullptr, &now) < 0 && errno == EINTR) continue;
  STASIS_TRY(call("KVM_SET_SIGNAL_MASK", KVM_SET_SIGNAL_MASK, nullptr));
  if (!left) return std::unexpected(std::move(left).error());
  return entered;
}

}  // namespace stasis::kvm
