// Guest RAM: where it lies, and what is known to be zero.
#include "memory/guest_memory.hpp"

#include <gtest/gtest.h>

#include <algorithm>

using namespace stasis;
namespace {

TEST(GuestMemory, ram_above_the_hole_starts_at_4_gib) {
  auto memory = GuestMemory::create(6 * kGiB);
  ASSERT_TRUE(memory);
  const auto ranges = memory->ranges();
  ASSERT_EQ(ranges.size(), 2u);
  EXPECT_EQ(ranges[0].size, 3 * kGiB);
  EXPECT_EQ(ranges[1].address, 4 * kGiB);
  EXPECT_EQ(memory->offset_of(4 * kGiB), 3 * kGiB);
  EXPECT_EQ(memory->offset_of(7 * kGiB - 1), 6 * kGiB - 1);
  EXPECT_EQ(memory->offset_of(7 * kGiB), GuestMemory::kNotRam);
  EXPECT_EQ(memory->offset_of(3 * kGiB), GuestMemory::kNotRam);
  EXPECT_EQ(memory->address_of(3 * kGiB), 4 * kGiB);
}

TEST(GuestMemory, copies_refuse_the_hole_whole) {
  auto memory = GuestMemory::create(4 * kGiB);
  ASSERT_TRUE(memory);
  const u8 bytes[4] = {1, 2, 3, 4};
  EXPECT_FALSE(memory->write(3 * kGiB - 2, bytes));
  EXPECT_TRUE(memory->write(3 * kGiB - 4, bytes));
  u8 back[4] = {};
  EXPECT_TRUE(memory->read(3 * kGiB - 4, back));
  EXPECT_EQ(back[3], 4);
}

TEST(GuestMemory, untouched_pages_are_known_to_be_zero) {
  auto memory = GuestMemory::create(64 * kMiB);
  ASSERT_TRUE(memory);
  memory->host()[5 * kPageSize] = 1;
  const auto bits = memory->maybe_nonzero_pages();
  ASSERT_TRUE(bits);
  EXPECT_TRUE((*bits)[0] >> 5 & 1);
  EXPECT_EQ((*bits)[200], 0u);
}

TEST(GuestMemory, written_pages_are_marked_until_taken_and_only_when_wanted) {
  auto memory = GuestMemory::create(4 * kGiB);
  ASSERT_TRUE(memory);
  const u8 bytes[8] = {1};
  std::vector<u64> taken(memory->pages() / 64);
  memory->write(0, bytes);
  memory->track_writes(true);
  EXPECT_TRUE(memory->unmarked(0));
  memory->write(64 * kPageSize - 4, bytes);            // crosses into the next word
  memory->write(GuestMemory::kHoleEnd, bytes);         // RAM offset 3 GiB
  memory->write(GuestMemory::kHoleStart - 4, bytes);   // refused whole
  memory->mark_written(5 * kPageSize, 0);
  EXPECT_FALSE(memory->unmarked(63));
  GuestMemory moved = std::move(*memory);
  taken[7] = 1;
  moved.take_written(taken);
  std::vector<u64> wanted(taken.size());
  wanted[0] = u64{1} << 63, wanted[1] = 1, wanted[7] = 1, wanted[3 * kGiB / kPageSize / 64] = 1;
  EXPECT_EQ(taken, wanted);
  std::ranges::fill(taken, 0);
  moved.take_written(taken);
  EXPECT_EQ(taken, std::vector<u64>(taken.size())) << "they were taken";
}

TEST(GuestMemory, refuses_sizes_that_are_no_pages) {
  const auto refused = GuestMemory::create(kMiB + 1);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text().find("1048577"), std::string::npos);
}

}  // namespace
