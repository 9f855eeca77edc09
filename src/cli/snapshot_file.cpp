// Opening what the offline commands read.
#include "cli/snapshot_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "cli/output.hpp"
#include "host/host_clock.hpp"
#include "host/terminal.hpp"

namespace stasis::cli {
namespace {

constexpr u64 kShowAfter = 300 * kMillisecond, kShowEvery = 200 * kMillisecond;

class WholeFile : public snapshot::Source {
 public:
  WholeFile(const FileDescriptor& file, u64 size, const std::string& name) : file_(file), size_(size), name_(name) {}
  u64 size() const override { return size_; }
  Result<> read(u64 offset, MutableBytes out) const override { return read_exactly_at(file_.get(), out, offset, name_); }

 private:
  const FileDescriptor& file_;
  u64 size_;
  const std::string& name_;
};

}  // namespace

ProgressLine::ProgressLine(std::string what)
    : what_(std::move(what)), terminal_(host::is_terminal(STDERR_FILENO)), began_(host::monotonic_ns()), last_(began_) {
  progress_.step = [this](u64 done, u64 total) {
    const u64 now = host::monotonic_ns();
    if (!terminal_ || now - began_ < kShowAfter || now - last_ < kShowEvery) return true;
    last_ = now;
    shown_ = true;
    fmt::print(stderr, "\r\033[K{} {}", what_, progress_line(done, total, now - began_));
    std::fflush(stderr);
    return true;
  };
}

ProgressLine::~ProgressLine() {
  if (shown_) std::fputs("\r\033[K", stderr);
}

Result<snapshot::RamImage> load_ram(const snapshot::OpenSnapshot& snapshot, bool checked) {
  ProgressLine progress("reading " + printable(snapshot.path));
  if (checked && snapshot::root_of(snapshot).ram.encoding == snapshot::Encoding::mapped) STASIS_TRY(snapshot::verify_ram(snapshot, progress.get()));
  return snapshot::RamImage::load(snapshot, progress.get());
}

std::string object_of(const snapshot::OpenSnapshot& snapshot) { return "snapshot " + snapshot.path; }

Result<inspect::Symbols> load_symbols(const std::string& path) {
  STASIS_TRY_SET(const FileDescriptor file, open_file(path, O_RDONLY));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return fail_errno(path, "asking for its size", errno);
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::usage, path, "is no regular file", "give a System.map, a saved /proc/kallsyms, or an ELF file");
  return inspect::Symbols::load(WholeFile(file, static_cast<u64>(status.st_size), path), path);
}

Result<inspect::Vcpu> choose_vcpu(const snapshot::OpenSnapshot& snapshot, int wanted) {
  if (wanted >= 0) return inspect::vcpu_of(snapshot.image, static_cast<unsigned>(wanted), object_of(snapshot));
  STASIS_TRY_SET(const auto all, inspect::vcpus_of(snapshot.image, object_of(snapshot)));
  for (const auto& vcpu : all)
    if (vcpu.cr0 >> 31 & 1 && vcpu.efer >> 10 & 1) return vcpu;
  return all.front();
}

}  // namespace stasis::cli
