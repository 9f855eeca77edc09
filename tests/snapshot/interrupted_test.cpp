// Saves that are killed, run out of disk, or lose their directory, in every encoding: the previous file of that name stays as
// it was, byte for byte, and the next save clears away what was left and is right.
//   STASIS_KILLS, STASIS_FULL_DISKS: how many of an encoding; STASIS_INTERRUPT_SEED: of the random moments and sizes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "snapshot/writer.hpp"
#include "snapshot_memory.hpp"

namespace stasis::snapshot {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;
using testing::image_of;
using testing::Ram;

u64 from_environment(const char* name, u64 otherwise) {
  const char* const text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

constexpr u64 kPages = 2048;  // 8 MiB, half of it not zero: progress is told once in between

std::vector<u64> every(u64 step) {
  std::vector<u64> out;
  for (u64 page = 0; page < kPages; page += step) out.push_back(page);
  return out;
}

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

std::vector<std::string> files(const fs::path& folder) {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(folder)) out.push_back(entry.path().filename());
  std::ranges::sort(out);
  return out;
}

struct Kind {
  const char* name;
  Encoding encoding;
  bool sealed, child;
  friend void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }
};

class Interrupted : public ::testing::TestWithParam<Kind> {
 protected:
  Interrupted() {
    std::string name = (fs::temp_directory_path() / "stasis-interrupted-XXXXXX").string();
    STASIS_ASSERT(::mkdtemp(name.data()));
    folder_ = name;
    fs::create_directory(folder_ / "parents");
    fs::create_directory(folder_ / "target");
    random_.seed(from_environment("STASIS_INTERRUPT_SEED", 1));
  }
  ~Interrupted() override {
    while (::umount2(mounted_.c_str(), MNT_DETACH) == 0) {}
    fs::remove_all(folder_);
  }

  void SetUp() override {
    before_image_ = image_of(before_), after_image_ = image_of(after_);
    after_image_.producer.uuid = {9};
    if (!GetParam().child) return;
    const std::string path = (folder_ / "parents/parent.stasis").string();
    ASSERT_TRUE(save(path, image_of(parent_ram_), parent_ram_.source()));
    auto opened = open(path);
    ASSERT_TRUE(opened);
    parent_ = std::make_shared<const OpenSnapshot>(std::move(*opened));
  }

  SaveOptions options() const {
    SaveOptions out{.encoding = GetParam().encoding};
    if (GetParam().sealed) out.key = Key::from_bytes({1, 2, 3});
    out.parent = parent_.get();
    return out;
  }
  OpenOptions opening() const {
    OpenOptions out{.key = options().key};
    out.parents = {(folder_ / "parents").string()};
    return out;
  }
  Result<SaveReport> save_before(const fs::path& path) { return save(path, before_image_, before_.source(), nullptr, options()); }
  Result<SaveReport> save_after(const fs::path& path, SaveProgress* progress = nullptr) {
    return save(path, after_image_, after_.source(), progress, options());
  }
  // What a whole file of the new machine gives, whatever its salt.
  std::string digest_after() const { return digest(after_image_, after_.source()); }
  void expect_after(const fs::path& path) {
    const auto opened = open(path, opening());
    ASSERT_TRUE(opened) << opened.error().text();
    const auto found = digest(*opened);
    ASSERT_TRUE(found) << found.error().text();
    EXPECT_EQ(*found, digest_after());
  }

  // A file system of that many bytes, seen by this process alone; false: that takes root.
  bool mount_small(const fs::path& at, u64 bytes) {
    static const bool own = ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    mounted_ = at;
    return own && ::mount("tmpfs", at.c_str(), "tmpfs", 0, size_option(bytes).c_str()) == 0;
  }
  static std::string size_option(u64 bytes) { return "size=" + std::to_string(align_up(bytes, kPageSize)); }

  std::mt19937_64 random_;
  fs::path folder_, mounted_;
  static const Ram before_, parent_ram_, after_;
  Image before_image_, after_image_;
  std::shared_ptr<const OpenSnapshot> parent_;
};

const Ram Interrupted::before_{kPages, every(400)}, Interrupted::parent_ram_{kPages, every(3)}, Interrupted::after_{kPages, every(2)};

INSTANTIATE_TEST_SUITE_P(All, Interrupted,
                         ::testing::Values(Kind{"mapped", Encoding::mapped, false, false}, Kind{"packed", Encoding::packed, false, false},
                                           Kind{"encrypted", Encoding::packed, true, false}, Kind{"mapped_child", Encoding::mapped, false, true},
                                           Kind{"packed_child", Encoding::packed, false, true}),
                         [](const auto& kind) { return std::string(kind.param.name); });

// ---- SIGKILL --------------------------------------------------------------------------------------------------------

// Kills a process that says when it begins, so long after that.
template <class Work>
void killed_after(std::chrono::nanoseconds delay, const Work& work) {
  int begun[2];
  ASSERT_EQ(::pipe(begun), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    (void)!::write(begun[1], "b", 1);
    work();
    ::_exit(0);
  }
  char byte;
  ASSERT_EQ(::read(begun[0], &byte, 1), 1);
  std::this_thread::sleep_for(delay);
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  ::close(begun[0]);
  ::close(begun[1]);
}

TEST_P(Interrupted, a_kill_at_any_moment_leaves_the_old_file_or_the_whole_new_one) {
  const u64 kills = from_environment("STASIS_KILLS", 12);
  const fs::path target = folder_ / "target", path = target / "guest.stasis";
  const auto begin = steady_clock::now();
  ASSERT_TRUE(save_after(path));
  const auto takes = steady_clock::now() - begin;
  ASSERT_TRUE(save_before(path));
  const std::string old = content(path);
  std::uniform_real_distribution<double> share(0, 1);
  u64 kept = 0, replaced = 0, strays = 0;
  for (u64 round = 0; round < kills && !HasFailure(); ++round) {
    const double part = share(random_);  // early moments more often: a save may be faster than the first one was
    killed_after(std::chrono::nanoseconds(static_cast<i64>(1.3 * part * part * static_cast<double>(takes.count()))), [&] { (void)save_after(path); });
    const auto found = files(target);
    EXPECT_LE(found.size(), 2u) << "what the save before left is still there";
    strays += found.size() == 2;
    if (content(path) == old) {
      ++kept;
    } else {
      ++replaced;
      expect_after(path);
      std::ofstream(path, std::ios::binary) << old;
    }
    if (round % 10 == 9 || round + 1 == kills) {
      ASSERT_TRUE(save_before(folder_ / "target/guest.stasis"));
      EXPECT_EQ(files(target), std::vector<std::string>{"guest.stasis"});
      if (GetParam().sealed) std::ofstream(path, std::ios::binary) << old;  // another salt
    }
  }
  EXPECT_GT(kept, 0u);
  for (const auto& [name, count] : {std::pair{"kept", kept}, {"replaced", replaced}, {"strays", strays}}) RecordProperty(name, std::to_string(count));
  ASSERT_TRUE(save_after(path));
  expect_after(path);
}

// ---- full disks -----------------------------------------------------------------------------------------------------

// A limit on the size of a file needs no rights: the write that crosses it fails.
TEST_P(Interrupted, a_file_that_may_not_grow_any_more_leaves_the_old_one) {
  const u64 rounds = from_environment("STASIS_FULL_DISKS", 4);
  const fs::path target = folder_ / "target", path = target / "guest.stasis";
  const auto whole = save_after(path);
  ASSERT_TRUE(whole);
  ASSERT_TRUE(save_before(path));
  const std::string old = content(path);
  for (u64 round = 0; round < rounds && !HasFailure(); ++round) {
    const u64 most = random_() % whole->file_bytes;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{most, most};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      const auto report = save_after(path);
      ::_exit(!report && report.error().code == ErrorCode::host ? 0 : 1);
    }
    int status;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << "at " << most << " bytes";
    EXPECT_EQ(content(path), old);
    EXPECT_EQ(files(target), std::vector<std::string>{"guest.stasis"});
  }
  ASSERT_TRUE(save_after(path));
  expect_after(path);
}

TEST_P(Interrupted, a_full_disk_leaves_the_old_file) {
  const u64 rounds = from_environment("STASIS_FULL_DISKS", 4);
  ASSERT_TRUE(save_before(folder_ / "old.stasis"));
  const auto whole = save_after(folder_ / "new.stasis");
  ASSERT_TRUE(whole);
  const std::string old = content(folder_ / "old.stasis");
  const fs::path target = folder_ / "target", path = target / "guest.stasis", filler = target / "filler";
  for (u64 round = 0; round < rounds && !HasFailure(); ++round) {
    // Too small from the beginning, or filled up by somebody else while the save goes on.
    const bool by_another = round % 2;
    const u64 room = align_up(old.size(), kPageSize) + 64 * kKiB + (by_another ? 2 * whole->file_bytes : random_() % (whole->stored_bytes - 256 * kKiB));
    if (!mount_small(target, room)) GTEST_SKIP() << "mounting takes root";
    std::ofstream(path, std::ios::binary) << old;
    u64 steps_left = by_another ? random_() % 3 : ~0ull;
    SaveProgress progress{[&](u64, u64) {
      if (steps_left-- != 0) return true;
      std::ofstream(filler, std::ios::binary) << std::string(room, 'x');  // as much as there is
      return true;
    }};
    const auto report = save_after(path, &progress);
    if (report) {
      EXPECT_TRUE(by_another);  // what was written before had been enough
    } else {
      EXPECT_EQ(report.error().code, ErrorCode::host);
      EXPECT_NE(report.error().text().find("the disk is full: the snapshot needs up to"), std::string::npos) << report.error().text();
      EXPECT_EQ(content(path), old);
      fs::remove(filler);
      EXPECT_EQ(files(target), std::vector<std::string>{"guest.stasis"});
    }
    ASSERT_EQ(::mount("tmpfs", target.c_str(), "tmpfs", MS_REMOUNT, size_option(room + 3 * whole->file_bytes).c_str()), 0);
    fs::remove(filler);
    const auto next = save_after(path);
    ASSERT_TRUE(next) << next.error().text();
    expect_after(path);
    EXPECT_EQ(files(target), std::vector<std::string>{"guest.stasis"});
    ASSERT_EQ(::umount2(target.c_str(), MNT_DETACH), 0);  // the file before may still be being let go of
  }
}

// ---- directories ----------------------------------------------------------------------------------------------------

TEST_P(Interrupted, a_directory_that_may_not_be_written_leaves_the_old_file) {
  const fs::path target = folder_ / "target", path = target / "guest.stasis";
  ASSERT_TRUE(save_before(path));
  const std::string old = content(path);
  fs::permissions(folder_, fs::perms::all);
  fs::permissions(target, fs::perms(0555));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::geteuid() == 0 && ::seteuid(65534) != 0) ::_exit(2);
    const auto report = save_after(path);
    ::_exit(!report && report.error().code == ErrorCode::permission ? 0 : 1);
  }
  int status;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(content(path), old);
  fs::permissions(target, fs::perms(0755));
  EXPECT_EQ(files(target), std::vector<std::string>{"guest.stasis"});
  ASSERT_TRUE(save_after(path));
  expect_after(path);
}

TEST_P(Interrupted, a_read_only_file_system_leaves_the_old_file) {
  const fs::path target = folder_ / "target", path = target / "guest.stasis";
  if (!mount_small(target, 64 * kMiB)) GTEST_SKIP() << "mounting takes root";
  ASSERT_TRUE(save_before(path));
  const std::string old = content(path);
  ASSERT_EQ(::mount("tmpfs", target.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr), 0);
  const auto report = save_after(path);
  ASSERT_FALSE(report);
  EXPECT_NE(report.error().text().find("Read-only file system"), std::string::npos) << report.error().text();
  EXPECT_NE(report.error().text().find(path.string()), std::string::npos) << report.error().text();
  EXPECT_EQ(content(path), old);
  ASSERT_EQ(::mount("tmpfs", target.c_str(), "tmpfs", MS_REMOUNT, nullptr), 0);
  EXPECT_EQ(files(target), std::vector<std::string>{"guest.stasis"});
  ASSERT_TRUE(save_after(path));
  expect_after(path);
}

TEST_P(Interrupted, a_directory_that_vanishes_is_told) {
  const fs::path target = folder_ / "target", path = target / "guest.stasis";
  ASSERT_TRUE(save_before(path));
  for (unsigned at = 0; at < 3; ++at) {
    unsigned steps = 0;
    SaveProgress progress{[&](u64, u64) {
      if (steps++ == at) fs::remove_all(target);
      return true;
    }};
    const auto during = save_after(path, &progress);
    ASSERT_FALSE(during);
    EXPECT_NE(during.error().text().find(path.string()), std::string::npos) << during.error().text();
    EXPECT_FALSE(fs::exists(target));
    const auto gone = save_after(path);
    ASSERT_FALSE(gone);
    EXPECT_EQ(gone.error().code, ErrorCode::usage);
    fs::create_directory(target);
    ASSERT_TRUE(save_after(path));
    expect_after(path);
  }
}

}  // namespace
}  // namespace stasis::snapshot
