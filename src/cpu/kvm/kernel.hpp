// The seam to the host kernel's KVM: a fake of it serves tests and fault injection everywhere.
#pragma once

#include <memory>
#include <string>

#include "base/types.hpp"

namespace stasis::kvm {

// Each call returns a value of 0 and up, or -errno. Thread-safe.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual int open() = 0;  // /dev/kvm
  virtual long ioctl(int fd, unsigned long request, void* argument) = 0;
  virtual long ioctl_value(int fd, unsigned long request, u64 argument) = 0;  // for requests that take a number
  virtual void* map(int fd, std::size_t size) = 0;  // shared; null on failure, with errno
  virtual void unmap(void* at, std::size_t size) = 0;
  virtual void close(int fd) = 0;
  virtual u64 time_stamp() = 0;  // the host's TSC
  // Which kernel module stands behind /dev/kvm: "kvm_intel", "kvm_amd", another one's name, or "".
  virtual std::string module() = 0;
};

std::shared_ptr<Kernel> host_kernel();

}  // namespace stasis::kvm
