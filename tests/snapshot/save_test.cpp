// Saving to real files: publication under a temporary name, sparseness, refusals, and what a killed saver leaves.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "memory/guest_memory.hpp"
#include "snapshot/writer.hpp"
#include "snapshot_memory.hpp"

namespace stasis::snapshot {
namespace {

namespace fs = std::filesystem;
using testing::image_of;
using testing::Ram;

class Saving : public ::testing::Test {
 protected:
  Saving() {
    std::string name = (fs::temp_directory_path() / "stasis-save-XXXXXX").string();
    STASIS_ASSERT(::mkdtemp(name.data()));
    folder_ = name;
  }
  ~Saving() override { fs::remove_all(folder_); }
  std::string path(const std::string& name = "guest.stasis") const { return (folder_ / name).string(); }
  std::vector<std::string> files() const {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(folder_)) out.push_back(entry.path().filename());
    std::ranges::sort(out);
    return out;
  }
  static std::string content(const std::string& name) {
    std::ifstream in(name, std::ios::binary);
    std::stringstream out;
    out << in.rdbuf();
    return out.str();
  }
  void expect_refused(const std::string& target, ErrorCode code, std::string_view part_of_text) {
    const Ram ram(1);
    const auto report = save(target, image_of(ram), ram.source());
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, code) << report.error().text();
    EXPECT_NE(report.error().text().find(part_of_text), std::string::npos) << report.error().text();
  }
  fs::path folder_;
};

TEST_F(Saving, round_trip_through_guest_memory) {
  auto memory = GuestMemory::create(2 * kMiB);
  ASSERT_TRUE(memory);
  std::mt19937_64 random(1);
  for (u64 page : {0, 1, 100, 255, 511})
    for (u64 i = 0; i < kPageSize; ++i) memory->host()[page * kPageSize + i] = static_cast<u8>(random());
  const auto bits = *memory->maybe_nonzero_pages();
  Image image = image_of(Ram(512));
  const RamSource ram{memory->host(), memory->size(), bits};
  const auto report = save(path(), image, ram);
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(report->pages_present, 5u);
  EXPECT_EQ(report->digest, digest(image, ram));
  struct stat info;
  ASSERT_EQ(::stat(path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(static_cast<u64>(info.st_size), report->file_bytes);

  const auto opened = open(path());
  ASSERT_TRUE(opened) << opened.error().text();
  EXPECT_TRUE(verify_ram(*opened));
  EXPECT_EQ(*digest(*opened), report->digest);
  auto mapped = GuestMemory::map_file(opened->file.get(), opened->ram_offset, opened->image.ram_size, opened->nonzero);
  ASSERT_TRUE(mapped) << mapped.error().text();
  EXPECT_EQ(std::memcmp(mapped->host(), memory->host(), memory->size()), 0);

  // The resumed machine saves the same bytes, even over the file that its RAM is mapped from.
  const auto bits_again = *mapped->maybe_nonzero_pages();
  const std::string before = content(path());
  ASSERT_TRUE(save(path(), opened->image, {mapped->host(), mapped->size(), bits_again}));
  EXPECT_EQ(content(path()), before);
  mapped->host()[0] ^= 1;
  EXPECT_EQ(content(path()), before) << "a running guest changed its file";
  EXPECT_EQ(files(), std::vector<std::string>{"guest.stasis"});
}

TEST_F(Saving, zero_pages_cost_no_disk) {
  const Ram ram(16384, {0, 9000, 16383});  // 64 MiB
  const auto report = save(path(), image_of(ram), ram.source());
  ASSERT_TRUE(report);
  struct stat info;
  ASSERT_EQ(::stat(path().c_str(), &info), 0);
  EXPECT_GT(info.st_size, 64 << 20);
  EXPECT_LT(static_cast<u64>(info.st_blocks) * 512, 256 * kKiB);
  const auto opened = open(path());
  ASSERT_TRUE(opened);
  EXPECT_TRUE(verify_ram(*opened));
  EXPECT_EQ(*digest(*opened), report->digest);
}

TEST_F(Saving, a_flipped_byte_on_disk_is_found) {
  const Ram ram(300, {7, 8, 200});
  ASSERT_TRUE(save(path(), image_of(ram), ram.source()));
  const auto layout = open(path());
  ASSERT_TRUE(layout);
  for (const u64 at : {layout->ram_offset + 7 * kPageSize, layout->ram_offset + 299 * kPageSize}) {  // present, hole
    const FileDescriptor file = *open_file(path(), O_RDWR);
    u8 byte;
    ASSERT_TRUE(read_exactly_at(file.get(), {&byte, 1}, at, "test"));
    byte ^= 4;
    ASSERT_TRUE(write_all_at(file.get(), {&byte, 1}, at, "test"));
    const auto opened = open(path());
    ASSERT_TRUE(opened) << "RAM is not read by open";
    EXPECT_FALSE(verify_ram(*opened));
    EXPECT_FALSE(digest(*opened));
    byte ^= 4;
    ASSERT_TRUE(write_all_at(file.get(), {&byte, 1}, at, "test"));
    EXPECT_TRUE(verify_ram(*opened));
  }
}

TEST_F(Saving, targets_that_cannot_be_are_refused_in_words) {
  expect_refused("", ErrorCode::usage, "the path is empty");
  expect_refused(folder_.string(), ErrorCode::usage, "is a directory, not a file");
  expect_refused(folder_.string() + "/", ErrorCode::usage, "is a directory, not a file");
  expect_refused(path("no/guest.stasis"), ErrorCode::usage, "no does not exist; create it first: mkdir -p");
  std::ofstream(path("plain")) << "x";
  expect_refused(path("plain/guest"), ErrorCode::usage, "plain is not a directory");
  expect_refused("/dev/null", ErrorCode::usage, "is no regular file");
  expect_refused(path(std::string(250, 'n')), ErrorCode::usage, "250 bytes, allowed are 241");
  fs::create_symlink("nowhere", path("dangling"));
  expect_refused(path("dangling"), ErrorCode::usage, "symbolic link to nowhere");
  EXPECT_EQ(files(), (std::vector<std::string>{"dangling", "plain"}));
}

TEST_F(Saving, a_link_keeps_pointing) {
  fs::create_directory(path("real"));
  std::ofstream(path("real/guest.stasis")) << "previous";
  fs::create_symlink("real/guest.stasis", path("latest"));
  const Ram ram(1, {0});
  ASSERT_TRUE(save(path("latest"), image_of(ram), ram.source()));
  EXPECT_TRUE(fs::is_symlink(path("latest")));
  EXPECT_TRUE(open(path("real/guest.stasis")));
}

TEST_F(Saving, things_that_are_no_snapshots_are_refused_in_words) {
  const auto text_of = [](const std::string& name) {
    const auto opened = open(name);
    return opened ? std::string("opened") : opened.error().text();
  };
  EXPECT_NE(text_of(path("absent")).find("no such file"), std::string::npos);
  EXPECT_NE(text_of(folder_.string()).find("is a directory"), std::string::npos);
  std::ofstream(path("empty"));
  EXPECT_NE(text_of(path("empty")).find("is empty"), std::string::npos);
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  EXPECT_NE(text_of(path("fifo")).find("is no regular file"), std::string::npos);
  std::ofstream(path("text")) << "hello, world\n";
  EXPECT_NE(text_of(path("text")).find("is not a Stasis snapshot"), std::string::npos);
}

TEST_F(Saving, the_second_save_to_a_name_is_refused_while_the_first_goes_on) {
  const Ram ram(2048, [] { std::vector<u64> all(2048); for (u64 i = 0; i < 2048; ++i) all[i] = i; return all; }());
  const Image image = image_of(ram);
  std::string second, other;
  SaveProgress progress{[&](u64, u64) {
    if (second.empty()) {
      const auto refused = save(path(), image, ram.source());
      second = refused ? "saved" : std::string(name_of(refused.error().code));
      other = save(path("other.stasis"), image, ram.source()) ? "saved" : "refused";
    }
    return true;
  }};
  ASSERT_TRUE(save(path(), image, ram.source(), &progress));
  EXPECT_EQ(second, "busy");
  EXPECT_EQ(other, "saved");
  EXPECT_TRUE(open(path()));
  EXPECT_EQ(files(), (std::vector<std::string>{"guest.stasis", "other.stasis"}));
}

TEST_F(Saving, many_savers_at_once_leave_one_whole_file) {
  const Ram ram(512, {1, 2, 3, 400});
  const Image image = image_of(ram);
  std::atomic<int> saved{0}, odd{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i)
    threads.emplace_back([&] {
      for (int round = 0; round < 10; ++round) {
        const auto report = save(path(), image, ram.source());
        if (report) ++saved;
        else if (report.error().code != ErrorCode::busy) ++odd;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(saved, 0);
  EXPECT_EQ(odd, 0);
  EXPECT_TRUE(open(path()));
  EXPECT_EQ(files(), std::vector<std::string>{"guest.stasis"});
}

TEST_F(Saving, cancelling_keeps_the_previous_file) {
  const Ram ram(4096, [] { std::vector<u64> all(4096); for (u64 i = 0; i < 4096; ++i) all[i] = i; return all; }());
  std::ofstream(path()) << "previous";
  unsigned steps = 0;
  SaveProgress cancel{[&](u64, u64) { return ++steps < 3; }};
  const auto report = save(path(), image_of(ram), ram.source(), &cancel);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::cancelled);
  EXPECT_EQ(content(path()), "previous");
  EXPECT_EQ(files(), std::vector<std::string>{"guest.stasis"});
}

TEST_F(Saving, stale_temporaries_go_and_those_of_others_stay) {
  const Ram ram(1, {0});
  for (const char* name : {".guest.stasis.0123abcd.tmp", ".guest.stasis.old.0123abcd.tmp", ".guest.stasis.0123ABCD.tmp", ".guest.stasis.tmp"})
    std::ofstream(path(name)) << "x";
  ASSERT_TRUE(save(path(), image_of(ram), ram.source()));
  EXPECT_EQ(files(), (std::vector<std::string>{".guest.stasis.0123ABCD.tmp", ".guest.stasis.old.0123abcd.tmp", ".guest.stasis.tmp", "guest.stasis"}));
}

TEST_F(Saving, killed_savers_never_hurt_the_previous_file) {
  const Ram ram(4096, [] { std::vector<u64> all(4096); for (u64 i = 0; i < 4096; ++i) all[i] = i; return all; }());
  const Image image = image_of(ram);
  ASSERT_TRUE(save(path(), image, ram.source()));
  for (unsigned round = 0; round < 12; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      unsigned steps = 0;
      SaveProgress die{[&](u64, u64) {
        if (++steps > round % 6) ::kill(::getpid(), SIGKILL);
        return true;
      }};
      (void)save(path(), image, ram.source(), &die);
      ::_exit(0);
    }
    int status;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    const auto opened = open(path());
    ASSERT_TRUE(opened) << opened.error().text();
    EXPECT_LE(files().size(), 2u) << "more than one temporary is left";
  }
  EXPECT_TRUE(verify_ram(*open(path())));
  ASSERT_TRUE(save(path(), image, ram.source()));
  EXPECT_EQ(files(), std::vector<std::string>{"guest.stasis"});
}

TEST_F(Saving, an_interrupted_file_says_incomplete_and_who_wrote_it) {
  const Ram ram(512, {5});
  ASSERT_TRUE(save(path(), image_of(ram), ram.source()));
  fs::resize_file(path(), fs::file_size(path()) - 64);
  const auto opened = open(path());
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().text().find("the file is incomplete"), std::string::npos);
  const auto who = identify(path());
  ASSERT_TRUE(who);
  EXPECT_FALSE(who->complete);
  EXPECT_EQ(who->producer.created_at, "2025-01-02T03:04:05Z");
}

// A limit on the size of files stands in for a full disk: the write fails half way.
TEST_F(Saving, a_write_that_fails_keeps_the_previous_file) {
  std::ofstream(path()) << "previous";
  const Ram ram(4096, {4000});
  const Image image = image_of(ram);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{kMiB, kMiB};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const auto report = save(path(), image, ram.source());
    ::_exit(!report && report.error().code == ErrorCode::host ? 0 : 1);
  }
  int status;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(content(path()), "previous");
  EXPECT_EQ(files(), std::vector<std::string>{"guest.stasis"});
}

// A child that changed nothing has its parent's content: under its parent's name it names itself.
TEST_F(Saving, a_snapshot_that_is_its_own_ancestor_is_refused) {
  const Ram ram(70, {5});
  ASSERT_TRUE(save(path("loop.stasis"), image_of(ram), ram.source()));
  const auto parent = open(path("loop.stasis"));
  ASSERT_TRUE(parent);
  ASSERT_TRUE(save(path("loop.stasis"), image_of(ram), ram.source(), nullptr, {.parent = &*parent}));
  OpenOptions options;
  options.parents.assign(8, folder_.string());
  const auto loop = open(path("loop.stasis"), options);
  ASSERT_FALSE(loop);
  EXPECT_EQ(loop.error().code, ErrorCode::bad_file);
  EXPECT_NE(loop.error().text().find("its own ancestor"), std::string::npos) << loop.error().text();
  EXPECT_LT(loop.error().text().size(), 4000u);
  EXPECT_TRUE(open(path("loop.stasis"), {.ancestors = false}));
}

// Two places to look in at each of 40 generations: as many ways to the end of the chain as there are none to wait for.
TEST_F(Saving, a_long_chain_without_its_end_is_refused_at_once) {
  Ram ram(70, {5});
  const Image image = image_of(ram);
  const fs::path copies = folder_ / "copies";
  fs::create_directory(copies);
  ASSERT_TRUE(save(path("0"), image, ram.source()));
  OpenOptions options;
  options.parents = {copies.string()};
  for (unsigned generation = 1; generation <= 40; ++generation) {
    const auto parent = open(path(std::to_string(generation - 1)), options);
    ASSERT_TRUE(parent) << parent.error().text();
    ram.bytes[5 * kPageSize] = static_cast<u8>(generation);
    ASSERT_TRUE(save(path(std::to_string(generation)), image, ram.source(), nullptr, {.parent = &*parent}));
    fs::copy_file(path(std::to_string(generation)), copies / std::to_string(generation));
  }
  fs::rename(path("0"), copies / "0");  // the last ancestor is in the one place only: found by every way
  ASSERT_TRUE(open(path("40"), options));
  fs::remove(copies / "0");
  const auto cut = open(path("40"), options);
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, ErrorCode::not_found);
  EXPECT_NE(cut.error().text().find("its parent '0'"), std::string::npos) << cut.error().text();
  EXPECT_LT(cut.error().text().size(), 1000u) << "only the link that is missing is of interest";
}

TEST_F(Saving, a_damaged_parent_is_damage_and_not_absence) {
  Ram ram(70, {5});
  ASSERT_TRUE(save(path("parent"), image_of(ram), ram.source()));
  const auto parent = open(path("parent"));
  ram.bytes[5 * kPageSize] = 9;
  ASSERT_TRUE(save(path("child"), image_of(ram), ram.source(), nullptr, {.parent = &*parent}));
  fs::resize_file(path("parent"), fs::file_size(path("parent")) - 1);
  const auto child = open(path("child"));
  ASSERT_FALSE(child);
  EXPECT_EQ(child.error().code, ErrorCode::bad_file) << child.error().text();
}

// Somebody publishes another snapshot under the name that is written anew, while that goes on or just before: theirs stays,
// by whatever name the two call the place.
TEST_F(Saving, what_was_published_meanwhile_is_not_replaced_by_a_copy_of_what_was_there) {
  const Ram old(70, {5}), other(70, {6});
  struct Name {
    const char *target, *place;
  };
  for (const auto& [target, place] : {Name{"guest.stasis", "guest.stasis"}, Name{"./x/../guest.stasis", "guest.stasis"}, Name{"link", "guest.stasis"}, Name{"hard", "hard"}}) {
    for (const bool before : {true, false}) {
      SCOPED_TRACE(std::string(target) + (before ? " before" : " meanwhile"));
      for (const char* name : {"guest.stasis", "link", "hard", "theirs"}) fs::remove(path(name));
      fs::create_directory(path("x"));
      ASSERT_TRUE(save(path(), image_of(old), old.source()));
      ASSERT_TRUE(save(path("theirs"), image_of(other), other.source()));
      fs::create_symlink("guest.stasis", path("link"));
      fs::create_hard_link(path(), path("hard"));
      const auto source = open(path());
      ASSERT_TRUE(source);
      const std::string theirs = content(path("theirs"));
      const auto publish = [&] {
        if (fs::exists(path("theirs"))) fs::rename(path("theirs"), path(place));
      };
      if (before && std::string_view(place) == "guest.stasis") publish();
      SaveProgress meanwhile{[&](u64, u64) { return publish(), true; }};
      const auto report = save(path(target), source->image, old.source(), &meanwhile, {.source = &*source});
      ASSERT_FALSE(report);
      EXPECT_EQ(report.error().code, ErrorCode::busy) << report.error().text();
      EXPECT_EQ(content(path(place)), theirs);
    }
  }
}

}  // namespace
}  // namespace stasis::snapshot
