// Pages written since the last saved file, on a whole machine: nothing that changed is missed, a failed save loses nothing,
// and another base is told apart.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "tiny_machine.hpp"

namespace stasis::tiny {
namespace {

using Bits = std::vector<u64>;

bool has(const Bits& bits, u64 page) { return bits[page / 64] >> page % 64 & 1; }
u64 count(const Bits& bits) {
  u64 sum = 0;
  for (const u64 word : bits) sum += static_cast<u64>(std::popcount(word));
  return sum;
}

// A copy: the machine's own is gone with its next step. Fails the test when there is none.
Bits since(Machine& machine, const std::string& base) {
  const std::vector<u64>* bits = must(machine.dirty_since(base));
  EXPECT_NE(bits, nullptr);
  return bits ? *bits : Bits((machine.config().memory_bytes / kPageSize + 63) / 64);
}

Bits changed(const std::string& before, const std::string& after) {
  const Taken a = take_apart(before), b = take_apart(after);
  Bits bits((a.ram.size() / kPageSize + 63) / 64);
  for (u64 page = 0; page < a.ram.size() / kPageSize; ++page)
    if (std::memcmp(&a.ram[page * kPageSize], &b.ram[page * kPageSize], kPageSize) != 0) bits[page / 64] |= 1ull << page % 64;
  return bits;
}

void expect_covers(const Bits& marked, const Bits& pages) {
  for (u64 page = 0; page < pages.size() * 64; ++page) EXPECT_LE(has(pages, page), has(marked, page)) << "page " << page;
}

// One guest writes the same again and again, the other ever new pages of a log.
TEST(DirtyBase, every_page_that_differs_from_the_last_file_is_told) {
  Folder folder;
  for (const Bytes program : {long_mode(), clocks()}) {
    auto machine = boot(program);
    run_on(*machine, 1000);
    std::string path = folder / "0.stasis";
    SaveReport base = must(machine->save(path, nullptr));
    u64 all_marked = 0, all_differ = 0;
    for (unsigned period = 1; period <= 20; ++period) {
      run_on(*machine, 20'000);
      const Bits marked = since(*machine, base.digest);
      EXPECT_EQ(since(*machine, base.root), marked);
      const std::string next = folder / (std::to_string(period) + ".stasis");
      const SaveReport saved = must(machine->save(next, nullptr));
      const Bits differ = changed(path, next);
      expect_covers(marked, differ);
      all_marked += count(marked), all_differ += count(differ);
      EXPECT_EQ(must(machine->dirty_since(base.digest)), nullptr) << "the new file is the base";
      EXPECT_EQ(count(since(*machine, saved.digest)), 0u) << "nothing ran since";
      base = saved, path = next;
    }
    EXPECT_GT(all_differ, 0u);
    EXPECT_LT(all_marked, all_differ + 20 * 8) << "stacks and tables, written with what they held";
  }
}

TEST(DirtyBase, a_machine_never_saved_has_no_base) {
  auto machine = boot(long_mode());
  run_on(*machine, 1000);
  EXPECT_EQ(must(machine->dirty_since(must(machine->digest()))), nullptr);
  EXPECT_EQ(must(machine->dirty_since("")), nullptr);
}

TEST(DirtyBase, a_save_that_fails_or_is_cancelled_loses_nothing) {
  Folder folder;
  auto machine = boot(long_mode());
  const SaveReport base = must(machine->save(folder / "base.stasis", nullptr));
  run_on(*machine, 20'000);
  ASSERT_FALSE(machine->save(folder / "no/such/folder.stasis", nullptr));
  SaveProgress cancel{.step = [](u64, u64) { return false; }};
  ASSERT_FALSE(machine->save(folder / "cancelled.stasis", &cancel));
  const Bits first = since(*machine, base.digest);
  EXPECT_GT(count(first), 0u);
  run_on(*machine, 20'000);
  ASSERT_FALSE(machine->save(folder / "cancelled.stasis", &cancel));
  const Bits both = since(*machine, base.digest);
  expect_covers(both, first);
  must(machine->save(folder / "after.stasis", nullptr));
  expect_covers(both, changed(folder / "base.stasis", folder / "after.stasis"));
}

TEST(DirtyBase, a_restored_machine_starts_from_its_file) {
  Folder folder;
  const std::string path = folder / "base.stasis";
  auto first = boot(long_mode());
  run_on(*first, 5000);
  const SaveReport base = must(first->save(path, nullptr));
  auto machine = restore(path);
  EXPECT_EQ(count(since(*machine, base.root)), 0u);
  EXPECT_EQ(must(machine->dirty_since("another")), nullptr);
  run_on(*machine, 20'000);
  const Bits marked = since(*machine, base.digest);
  EXPECT_EQ(since(*machine, base.root), marked);
  const SaveReport next = must(machine->save(folder / "next.stasis", nullptr));
  expect_covers(marked, changed(path, folder / "next.stasis"));
  EXPECT_GT(count(marked), 0u);
  machine->name_restored_base(base.digest);  // too late: the next file is the base
  EXPECT_EQ(must(machine->dirty_since(base.digest)), nullptr);
  EXPECT_NE(must(machine->dirty_since(next.digest)), nullptr);
}

TEST(DirtyBase, a_reset_marks_what_it_loads) {
  Folder folder;
  auto machine = boot(tables());  // which the guest writes over
  run_to(*machine, 100'000);
  const SaveReport base = must(machine->save(folder / "base.stasis", nullptr));
  must(machine->reset());
  const Bits marked = since(*machine, base.digest);
  must(machine->save(folder / "reset.stasis", nullptr));
  const Bits differ = changed(folder / "base.stasis", folder / "reset.stasis");
  EXPECT_GT(count(differ), 0u);
  expect_covers(marked, differ);
  EXPECT_LT(count(marked), 64u);
}

// Saved now and then or never: the same machine at the end, by count and by digest.
TEST(DirtyBase, following_writes_leaves_no_trace) {
  Folder folder;
  for (const Bytes program : {long_mode(), events(), clocks()}) {
    auto plain = boot(program), tracked = boot(program);
    must(tracked->track_writes());
    for (u64 at = 7777; at < 300'000; at += 7777) {
      run_to(*tracked, at);
      must(tracked->save(folder / "now.stasis", nullptr));
    }
    EXPECT_EQ(run_to(*plain, 300'000), run_to(*tracked, 300'000));
    EXPECT_EQ(tracked->retired(), plain->retired());
    EXPECT_EQ(must(tracked->digest()), must(plain->digest()));
  }
}

}  // namespace
}  // namespace stasis::tiny
