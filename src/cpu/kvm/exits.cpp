// The vCPU threads: entering the guest, and what it comes out with.
#include <fmt/format.h>
#include "cpu/kvm/kvm_abi.hpp"
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cpu/kvm/engine.hpp"

namespace stasis::kvm {
namespace {


// The largest power of two that fits: an emulated access may have any width up to 8.
unsigned piece_of(unsigned left) { return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

}  // namespace

void KvmEngine::work(Worker& worker) {
  Vcpu::begin_thread();
  Lock lock(mutex_);
  worker.handle = ::pthread_self();
  worker.id = ::gettid();
  worker.started = true;
  for (;;) {
    worker.parked = true;
    parked_.notify_all();
    go_.wait(lock, [&] { return quit_ || (!stop_ && reason_ == StopReason::count); });
    if (quit_) return;
    worker.parked = false;
    lock.unlock();
    execute(worker);
    lock.lock();
  }
}

// KVM tells whether an interrupt can be taken when it comes back, so it is entered once with a wish to come back at once: what
// the page says until then is of another state, or nothing, and a halted vCPU opens no window. False: it cannot go on.
bool KvmEngine::look_at_window(Worker& worker) {
  ::kvm_run& page = worker.vcpu.run_page();
  page.immediate_exit = 1;
  const long entered = worker.vcpu.enter();
  page.immediate_exit = 0;  // before stop_ and intr_ are looked at, as below
  return entered < 0 || handle_exit(worker);
}

void KvmEngine::execute(Worker& worker) {
  if (worker.vcpu.id() == 0 && !look_at_window(worker)) return;
  while (!stop_) {
    if (worker.vcpu.id() == 0) offer_intr(worker);
    const long entered = worker.vcpu.enter();
    if (entered == -EINTR || entered == -EAGAIN) {
      worker.vcpu.run_page().immediate_exit = 0;  // before stop_ is looked at: who stops sets it after stop_
      continue;
    }
    if (entered < 0) {
      const Lock lock(mutex_);
      stop_with(StopReason::failed, fmt::format("KVM_RUN of vCPU {}: {}", worker.vcpu.id(), std::strerror(static_cast<int>(-entered))));
      return;
    }
    if (!handle_exit(worker)) return;  // its state is that of its end: it is not entered again
  }
  finish_exit(worker);
}

// An exit whose instruction is not finished (port input, MMIO) is finished without going on, so that the state stands
// at an instruction boundary.
void KvmEngine::finish_exit(Worker& worker) {
  for (;;) {
    worker.vcpu.run_page().immediate_exit = 1;
    if (worker.vcpu.enter() < 0) return settle(worker);
    if (!handle_exit(worker)) return;
  }
}

void KvmEngine::settle(Worker& worker) {
  for (;;) {
    const Result<long> entered = worker.vcpu.settle();
    worker.settled_ns = guest_now();
    if (!entered) {
      const Lock lock(mutex_);
      return stop_with(StopReason::failed, entered.error().text());
    }
    if (*entered < 0 || !handle_exit(worker)) return;
  }
}

// False: this vCPU cannot go on.
bool KvmEngine::handle_exit(Worker& worker) {
  ::kvm_run& page = worker.vcpu.run_page();
  const auto failed = [&](const std::string& why) {
    const Lock lock(mutex_);
    stop_with(StopReason::failed, fmt::format("vCPU {}: {}", worker.vcpu.id(), why));
    return false;
  };
  switch (page.exit_reason) {
    case KVM_EXIT_IO: port_access(page); return true;
    case KVM_EXIT_MMIO: memory_access(page); return true;
    case KVM_EXIT_IOAPIC_EOI: {
      const Lock lock(mutex_);
      advance_clock();
      chips_.eoi(page.eoi.vector);
      after_device_access();
      return true;
    }
    case KVM_EXIT_X86_WRMSR: {  // the only MSRs that come out are kvmclock's wall clock
      const auto set = worker.vcpu.set_wall_clock(page.msr.index, page.msr.data, wall_clock_of(board_.pvclock, board_.start_time));
      page.msr.error = set ? 0 : 1;  // #GP, where the guest was not shown it
      return true;
    }
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_HLT: return true;
    case KVM_EXIT_SHUTDOWN: {
      const Lock lock(mutex_);
      stop_with(StopReason::shutdown, "");
      return false;
    }
    case KVM_EXIT_INTERNAL_ERROR:
      return failed(fmt::format("KVM cannot emulate an instruction (suberror {})", page.internal.suberror));
    case KVM_EXIT_FAIL_ENTRY:
      return failed(fmt::format("the processor refuses the guest state (reason {:#x})", page.fail_entry.hardware_entry_failure_reason));
    default: return failed(fmt::format("KVM stopped with exit reason {}, which is not known here", page.exit_reason));
  }
}

void KvmEngine::port_access(::kvm_run& page) {
  const Lock lock(mutex_);
  advance_clock();
  u8* data = reinterpret_cast<u8*>(&page) + page.io.data_offset;
  for (u32 i = 0; i < page.io.count; ++i, data += page.io.size) {
    u32 value = 0;
    if (page.io.direction == KVM_EXIT_IO_OUT) {
      std::memcpy(&value, data, page.io.size);
      board_.ports.write(page.io.port, page.io.size, value);
    } else {
      value = board_.ports.read(page.io.port, page.io.size);
      std::memcpy(data, &value, page.io.size);
    }
  }
  after_device_access();
}

void KvmEngine::memory_access(::kvm_run& page) {
  const Lock lock(mutex_);
  advance_clock();
  const unsigned size = std::min<unsigned>(page.mmio.len, 8);
  for (unsigned done = 0; done < size;) {
    const unsigned piece = piece_of(size - done);
    u64 value = 0;
    if (page.mmio.is_write) {
      std::memcpy(&value, page.mmio.data + done, piece);
      board_.mmio.write(page.mmio.phys_addr + done, piece, value);
    } else {
      value = board_.mmio.read(page.mmio.phys_addr + done, piece);
      std::memcpy(page.mmio.data + done, &value, piece);
    }
    done += piece;
  }
  after_device_access();
}

// mutex_ is held. The first reason counts.
void KvmEngine::stop_with(StopReason reason, std::string why) {
  if (reason_ == StopReason::count) {
    reason_ = reason;
    failure_ = std::move(why);
  }
  wake();
}

// The 8259's interrupt, when the first vCPU can take it now; else KVM tells when it can.
void KvmEngine::offer_intr(Worker& worker) {
  ::kvm_run& page = worker.vcpu.run_page();
  page.request_interrupt_window = 0;
  if (!intr_) return;
  if (!page.ready_for_interrupt_injection || !page.if_flag) {
    page.request_interrupt_window = 1;
    return;
  }
  const Lock lock(mutex_);
  if (!intr_) return;
  advance_clock();
  if (auto injected = worker.vcpu.inject(chips_.pic_acknowledge()); !injected) stop_with(StopReason::failed, injected.error().text());
  page.ready_for_interrupt_injection = 0;
  if (intr_) page.request_interrupt_window = 1;
  after_device_access();
}

}  // namespace stasis::kvm
