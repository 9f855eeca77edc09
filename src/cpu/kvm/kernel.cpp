// The host's own KVM.
#include "cpu/kvm/kernel.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <x86intrin.h>

#include <cerrno>

namespace stasis::kvm {
namespace {

class HostKernel final : public Kernel {
 public:
  int open() override {
    const int fd = ::open("/dev/kvm", O_RDWR | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
  }
  long ioctl(int fd, unsigned long request, void* argument) override {
    const int result = ::ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
  }
  long ioctl_value(int fd, unsigned long request, u64 argument) override {
    const int result = ::ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
  }
  void* map(int fd, std::size_t size) override {
    void* const at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? nullptr : at;
  }
  void unmap(void* at, std::size_t size) override { ::munmap(at, size); }
  void close(int fd) override { ::close(fd); }
  u64 time_stamp() override { return __rdtsc(); }
  std::string module() override {
    struct ::stat unused {};
    for (const char* name : {"kvm_intel", "kvm_amd", "kvm_pvm"})
      if (::stat((std::string("/sys/module/") + name).c_str(), &unused) == 0) return name;
    return "";
  }
};

}  // namespace

std::shared_ptr<Kernel> host_kernel() { return std::make_shared<HostKernel>(); }

}  // namespace stasis::kvm
