// Tests of the file sink: what was written is in the file, however it was cut into pieces.
#include "snapshot/file_sink.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "base/file_descriptor.hpp"

namespace stasis::snapshot {
namespace {

// On the file system of the build, which likely knows O_DIRECT.
FileDescriptor scratch() {
  char name[] = "stasis-sink.XXXXXX";
  FileDescriptor out(::mkstemp(name));
  ::unlink(name);
  return out;
}

std::vector<u8> content(int fd) {
  struct stat info {};
  ::fstat(fd, &info);
  std::vector<u8> out(static_cast<std::size_t>(info.st_size));
  EXPECT_TRUE(read_exactly_at(fd, out, 0, "scratch"));
  return out;
}

// Pages that may be written from where they are.
struct Pages {
  Pages() : bytes(static_cast<u8*>(std::aligned_alloc(kPageSize, kSize))) {
    std::mt19937_64 random(1);
    for (u64 i = 0; i < kSize; i += 8) {
      const u64 value = random();
      std::memcpy(bytes + i, &value, 8);
    }
  }
  Pages(const Pages&) = delete;
  ~Pages() { std::free(bytes); }
  static constexpr u64 kSize = 8 * kMiB;
  u8* bytes;
};

TEST(FileSink, pieces_of_all_sizes_and_holes_arrive_in_order) {
  const Pages pages;
  for (unsigned seed = 0; seed < 30; ++seed) {
    std::mt19937_64 random(seed);
    const FileDescriptor file = scratch();
    ASSERT_GE(file.get(), 0);
    FileSink sink(file.get(), "scratch");
    std::vector<u8> wanted;
    const auto write = [&](u64 from, u64 size) {
      const Bytes piece(pages.bytes + from, size);
      ASSERT_TRUE(sink.write(piece));
      wanted.insert(wanted.end(), piece.begin(), piece.end());
    };
    for (unsigned step = 0; step < 40; ++step) {
      switch (random() % 6) {
        case 0: write(random() % 4096, random() % 100); break;
        case 1: write(random() % 4096, random() % 300'000); break;                                  // a block
        case 2: write(random() % 512 * kPageSize, (1 + random() % 64) * kPageSize); break;          // pages, wherever the file is
        case 3: write(0, align_up(wanted.size(), kPageSize) - wanted.size()); break;                // up to the next page of the file
        case 4: write(random() % 512 * kPageSize, kPageSize * (32 + random() % 1100)); break;       // many pages
        default: {
          const u64 hole = random() % 2 ? random() % 10'000 : align_up(wanted.size(), kPageSize) - wanted.size() + random() % 100 * kPageSize;
          ASSERT_TRUE(sink.skip_hole(hole));
          wanted.resize(wanted.size() + hole);
        }
      }
      if (random() % 20 == 0) {
        ASSERT_TRUE(sink.settle());
      }
    }
    write(0, 64);
    ASSERT_TRUE(sink.flush());
    EXPECT_TRUE(content(file.get()) == wanted) << "seed " << seed;
  }
}

TEST(FileSink, what_was_settled_is_in_the_file_and_what_comes_later_is_not_before_it_is_flushed) {
  const FileDescriptor file = scratch();
  FileSink sink(file.get(), "scratch");
  const std::vector<u8> first(5000, 1), last(64, 2);
  ASSERT_TRUE(sink.write(first));
  ASSERT_TRUE(sink.settle());
  ASSERT_TRUE(sink.write(last));
  EXPECT_EQ(content(file.get()), first);
  ASSERT_TRUE(sink.flush());
  EXPECT_EQ(content(file.get()).size(), first.size() + last.size());
}

TEST(FileSink, a_disk_that_is_full_is_told) {
  const FileDescriptor file(::open("/dev/full", O_RDWR | O_CLOEXEC));
  if (file.get() < 0) GTEST_SKIP() << "no /dev/full";
  FileSink sink(file.get(), "full");
  const Pages pages;
  Result<> done;
  for (int i = 0; done && i < 4; ++i) done = sink.write({pages.bytes + 1, Pages::kSize - 1});
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().text().find("the disk is full"), std::string::npos) << done.error().text();
}

}  // namespace
}  // namespace stasis::snapshot
