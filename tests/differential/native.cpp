// The child: signal handlers load a case into the interrupted context and take the outcome from the next signal's.
#include "native.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstring>

#include "base/error.hpp"

namespace stasis::differential {

struct Child {
  Native::Shared* shared;
  unsigned count = 0, next = 0;
  bool running = false;
  gregset_t home;

  // Signals carry no argument, and this process runs nothing else.
  static Child* self;

  static constexpr int kRegisters[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                         REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

  static void on_signal(int, siginfo_t*, void* context) { self->step(*static_cast<ucontext_t*>(context)); }

  void step(ucontext_t& context) {
    mcontext_t& machine = context.uc_mcontext;
    if (!running) {
      std::memcpy(home, machine.gregs, sizeof(home));
      running = true;
      next = 0;
    } else {
      take(machine, shared->outcomes[next++]);
    }
    if (next < count) return load(machine, shared->starts[next]);
    std::memcpy(machine.gregs, home, sizeof(home));
    running = false;
  }
  static void take(const mcontext_t& machine, Outcome& out) {
    for (unsigned i = 0; i < 16; ++i) out.gpr[i] = static_cast<u64>(machine.gregs[kRegisters[i]]);
    out.rip = static_cast<u64>(machine.gregs[REG_RIP]);
    out.rflags = static_cast<u64>(machine.gregs[REG_EFL]);
    out.vector = static_cast<u64>(machine.gregs[REG_TRAPNO]);
    out.error = static_cast<u64>(machine.gregs[REG_ERR]);
    out.cr2 = static_cast<u64>(machine.gregs[REG_CR2]);
    std::memcpy(out.fx, machine.fpregs, 512);
  }
  static void load(mcontext_t& machine, const Start& in) {
    for (unsigned i = 0; i < 16; ++i) machine.gregs[kRegisters[i]] = static_cast<greg_t>(in.gpr[i]);
    machine.gregs[REG_RIP] = static_cast<greg_t>(in.rip);
    machine.gregs[REG_EFL] = static_cast<greg_t>(in.rflags);
    machine.gregs[REG_CSGSFS] = static_cast<greg_t>(in.cs | kStackSelector << 48);
    u8* const image = reinterpret_cast<u8*>(machine.fpregs);
    std::memcpy(image, in.fx, 416);  // the bytes behind say how the frame is laid out
    u64 present;
    std::memcpy(&present, image + 512, 8);
    present |= 3;  // x87 and SSE are to be loaded
    std::memcpy(image + 512, &present, 8);
  }

  [[noreturn]] static void live(Native::Shared* shared, int in, int out) {
    static Child child;
    child.shared = shared;
    self = &child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    static u8 stack[65536];
    const stack_t alternate{.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof(stack)};
    sigaltstack(&alternate, nullptr);
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (const int signal : {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigaction(signal, &action, nullptr);
    // 32-bit code needs data segments; 64-bit code does not look at them.
    asm volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(static_cast<u32>(kStackSelector)));
    while (read(in, &child.count, sizeof(child.count)) == sizeof(child.count)) {
      asm volatile("int3" ::: "memory");
      if (write(out, &child.count, sizeof(child.count)) != sizeof(child.count)) break;
    }
    _exit(0);
  }
};
Child* Child::self = nullptr;

namespace {

void map_at(u64 address, u64 size, int protection, int fd, u64 offset) {
  void* const at = reinterpret_cast<void*>(address);
  STASIS_ASSERT(mmap(at, size, protection, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, static_cast<off_t>(offset)) == at);
}

}  // namespace

Native::Native() {
  const int fd = memfd_create("differential", MFD_CLOEXEC);
  STASIS_ASSERT(fd >= 0 && ftruncate(fd, sizeof(Shared)) == 0);
  void* const view = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  STASIS_ASSERT(view != MAP_FAILED);
  shared_ = static_cast<Shared*>(view);
  int down[2], up[2];
  STASIS_ASSERT(pipe2(down, 0) == 0 && pipe2(up, 0) == 0);
  child_ = fork();
  STASIS_ASSERT(child_ >= 0);
  if (child_ == 0) {
    close(down[1]);
    close(up[0]);
    map_at(kCode, kCodeSize, PROT_READ | PROT_EXEC, fd, kCodeAt);
    map_at(kData, kDataSize, PROT_READ | PROT_WRITE, fd, kDataAt);
    map_at(kEdge, kPageSize, PROT_READ | PROT_WRITE, fd, kEdgeAt);
    map_at(kReadOnly, kPageSize, PROT_READ, fd, kReadOnlyAt);
    Child::live(shared_, down[0], up[1]);
  }
  close(down[0]);
  close(up[1]);
  close(fd);
  to_child_ = down[1];
  from_child_ = up[0];
}

Native::~Native() {
  close(to_child_);
  close(from_child_);
  waitpid(child_, nullptr, 0);
  munmap(shared_, sizeof(Shared));
}

bool Native::run(unsigned count) {
  unsigned done = 0;
  return write(to_child_, &count, sizeof(count)) == sizeof(count) && read(from_child_, &done, sizeof(done)) == sizeof(done) && done == count;
}

}  // namespace stasis::differential
