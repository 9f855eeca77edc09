// Temporary names, their locks, and the rename.
#include "snapshot/publication.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace stasis::snapshot {
namespace {

constexpr unsigned kDigits = 8;
constexpr std::string_view kSuffix = ".tmp";

bool is_temporary_of(std::string_view found, std::string_view name) {
  if (found.size() != name.size() + 2 + kDigits + kSuffix.size()) return false;
  if (found.front() != '.' || found.substr(1, name.size()) != name || found[1 + name.size()] != '.' || !found.ends_with(kSuffix)) return false;
  return found.substr(name.size() + 2, kDigits).find_first_not_of("0123456789abcdef") == found.npos;
}

// A link is followed once, here: the file it points to is what gets replaced.
Result<std::string> without_link(const std::string& path) {
  struct stat info;
  if (::lstat(path.c_str(), &info) != 0 || !S_ISLNK(info.st_mode)) return path;
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
  if (real) return std::string(real.get());
  return fail(ErrorCode::usage, path, "is a symbolic link to nowhere", "name a file, or remove the link");
}

}  // namespace

Result<Publication> Publication::begin(const std::string& target) {
  if (target.empty()) return fail(ErrorCode::usage, "snapshot", "the path is empty", "name a file");
  Publication made;
  STASIS_TRY_SET(made.target_, without_link(target));
  STASIS_TRY(made.check_target());
  STASIS_TRY(made.lock_directory());
  STASIS_TRY(made.clear_stale());
  STASIS_TRY(made.create());
  ::flock(made.directory_.get(), LOCK_UN);
  return made;
}

Publication::Publication(Publication&& other) noexcept
    : target_(std::move(other.target_)),
      name_(std::move(other.name_)),
      directory_(std::move(other.directory_)),
      file_(std::move(other.file_)),
      temporary_(std::exchange(other.temporary_, {})),
      replaced_(std::move(other.replaced_)) {}

Publication::~Publication() {
  if (!temporary_.empty()) ::unlinkat(directory_.get(), temporary_.c_str(), 0);
}

Result<> Publication::check_target() {
  const std::size_t slash = target_.rfind('/');
  const std::string parent = slash == target_.npos ? "." : slash == 0 ? "/" : target_.substr(0, slash);
  name_ = slash == target_.npos ? target_ : target_.substr(slash + 1);
  struct stat info;
  if (name_.empty() || name_ == "." || name_ == ".." || (::stat(target_.c_str(), &info) == 0 && S_ISDIR(info.st_mode)))
    return fail(ErrorCode::usage, target_, "is a directory, not a file", "name a file in it, for example " + parent + "/guest.stasis");
  const std::size_t most = NAME_MAX - (2 + kDigits + kSuffix.size());
  if (name_.size() > most)
    return fail(ErrorCode::usage, target_, fmt::format("the file name has {} bytes, allowed are {}", name_.size(), most), "use a shorter name");
  if (::stat(target_.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
    return fail(ErrorCode::usage, target_, "exists and is no regular file", "name a file that is new or a snapshot");
  const int fd = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT)
    return fail(ErrorCode::usage, target_, fmt::format("its directory {} does not exist", parent), "create it first: mkdir -p " + parent);
  if (fd < 0 && errno == ENOTDIR) return fail(ErrorCode::usage, target_, fmt::format("{} is not a directory", parent), "check the path");
  if (fd < 0 && errno == EACCES)
    return fail(ErrorCode::permission, target_, fmt::format("its directory {} may not be read (permission denied)", parent), "save to a directory of your own");
  if (fd < 0) return fail_errno(target_, fmt::format("open its directory {}", parent), errno);
  directory_ = FileDescriptor(fd);
  return {};
}

// Held while temporaries are looked over and one is made, so that no saver takes a newborn one for stale.
Result<> Publication::lock_directory() {
  for (unsigned tries = 0; ::flock(directory_.get(), LOCK_EX | LOCK_NB) != 0; ++tries) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return fail_errno(target_, "lock its directory", errno, "save to a file system that has file locks");
    if (tries == 300) return fail(ErrorCode::busy, target_, "its directory is locked by another program", "try again later");
    const timespec pause{.tv_sec = 0, .tv_nsec = 10'000'000};
    ::nanosleep(&pause, nullptr);
  }
  return {};
}

Result<> Publication::clear_stale() {
  const int again = ::openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(again < 0 ? nullptr : ::fdopendir(again), &::closedir);
  if (!listing) return fail_errno(target_, "list its directory", errno);
  while (const dirent* entry = ::readdir(listing.get())) {
    if (!is_temporary_of(entry->d_name, name_)) continue;
    const FileDescriptor found(::openat(directory_.get(), entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat info;
    if (!found || ::fstat(found.get(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    if (::flock(found.get(), LOCK_EX | LOCK_NB) != 0)
      return fail(ErrorCode::busy, target_, "another save to this name is under way", "wait for it, cancel it, or choose another name");
    ::unlinkat(directory_.get(), entry->d_name, 0);
  }
  return {};
}

Result<> Publication::create() {
  for (unsigned tries = 0;; ++tries) {
    u32 number = 0;
    STASIS_ASSERT(::getrandom(&number, sizeof number, 0) == sizeof number);
    const std::string name = fmt::format(".{}.{:08x}{}", name_, number, kSuffix);
    const int fd = ::openat(directory_.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST && tries < 100) continue;
    if (fd < 0 && (errno == EACCES || errno == EPERM))
      return fail(ErrorCode::permission, target_, "its directory may not be written to (permission denied)", "save to a directory of your own");
    if (fd < 0) return fail_errno(target_, "create a temporary file beside it", errno);
    file_ = FileDescriptor(fd);
    temporary_ = name;
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) return fail_errno(target_, "lock its temporary file", errno);
    return {};
  }
}

Result<> Publication::check_replaces(int fd) {
  if (fd != replaced_.get()) replaced_ = FileDescriptor(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  struct stat opened, there;
  if (::fstat(replaced_.get(), &opened) != 0) return fail_errno(target_, "stat", errno);
  if (::fstatat(directory_.get(), name_.c_str(), &there, 0) == 0 && there.st_dev == opened.st_dev && there.st_ino == opened.st_ino) return {};
  return fail(ErrorCode::busy, target_, "was replaced by another snapshot meanwhile", "nothing was changed; do it again, with the new one");
}

namespace {

// The last reference to a replaced file frees its blocks, which takes a disk about a second a gigabyte: the guest
// that waits for this save need not wait for that too.
void let_go_in_the_background(FileDescriptor previous) {
  if (!previous) return;
  try {
    std::thread([held = std::move(previous)] {}).detach();
  } catch (const std::system_error&) {  // no thread to be had: it was let go of here
  }
}

}  // namespace

Result<> Publication::publish() {
  if (::fsync(file_.get()) != 0) return fail_errno(target_, "write to disk", errno);
  if (replaced_) STASIS_TRY(check_replaces(replaced_.get()));
  FileDescriptor previous(::openat(directory_.get(), name_.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (::renameat(directory_.get(), temporary_.c_str(), directory_.get(), name_.c_str()) != 0)
    return fail_errno(target_, "rename the finished file to its name", errno);
  temporary_.clear();
  let_go_in_the_background(std::move(previous));
  if (::fsync(directory_.get()) != 0)
    return fail_errno(target_, "the new file is in place, but its directory could not be written to disk", errno);
  return {};
}

}  // namespace stasis::snapshot
