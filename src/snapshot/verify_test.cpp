// Verifying: every kind of damage is told, all of it at once, and nothing is told of a whole file.
#include "snapshot/verify.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "snapshot/annotate.hpp"
#include "snapshot/encoder.hpp"
#include "snapshot/format.hpp"
#include "snapshot/rewrite.hpp"
#include "snapshot_memory.hpp"

namespace stasis::snapshot {
namespace {

using testing::encoded;
using testing::image_of;
using testing::MemorySource;
using testing::Ram;

Key key(u8 first = 7) {
  std::array<u8, 32> bytes{};
  bytes[0] = first;
  return Key::from_bytes(bytes);
}
SaveOptions packed() { return {.encoding = Encoding::packed}; }

class Verify : public ::testing::Test {
 protected:
  Verify() {
    char name[] = "/tmp/stasis-verify.XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  ~Verify() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::vector<u8>& bytes, const std::string& name = "a.stasis") {
    std::ofstream(folder_ + "/" + name, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return folder_ + "/" + name;
  }
  std::vector<u8> bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  // All problems, a line each.
  std::string told(const std::vector<u8>& bytes, const OpenOptions& options = {}) {
    const auto found = verify(file(bytes), options);
    if (!found) return "error: " + found.error().text();
    std::string out;
    for (const Error& problem : found->file.problems) out += problem.object + ": " + problem.message + "\n";
    return out;
  }
  std::string folder_;
};

Ram mixed() { return Ram(200, {0, 1, 2, 63, 64, 130, 199}); }

const SectionInfo& section(const Decoded& decoded, std::string_view name) { return *std::ranges::find(decoded.sections, name, &SectionInfo::name); }

void flip(std::vector<u8>& bytes, u64 at) { bytes[at] ^= 0x10; }

TEST_F(Verify, a_whole_file_has_no_problems) {
  const Ram ram = mixed();
  for (const SaveOptions& options : {SaveOptions{}, packed(), SaveOptions{.encoding = Encoding::packed, .key = key()}}) {
    const auto found = verify(file(encoded(image_of(ram), ram, options)), {.key = key()});
    ASSERT_TRUE(found);
    EXPECT_TRUE(found->file.problems.empty()) << found->file.problems.front().text();
    EXPECT_TRUE(found->unchecked.empty());
    EXPECT_EQ(found->digest, digest(image_of(ram), ram.source()));
  }
}

TEST_F(Verify, every_byte_counts) {
  const Ram ram(70, {0, 65});
  for (const SaveOptions& options : {SaveOptions{}, packed(), SaveOptions{.encoding = Encoding::packed, .key = key()}}) {
    const auto good = encoded(image_of(ram), ram, options);
    for (u64 at = 0; at < good.size(); at += at < 4096 || good.size() - at < 2048 ? 5 : 397) {
      auto bad = good;
      flip(bad, at);
      EXPECT_NE(told(bad, {.key = key()}), "") << "byte " << at << " of " << good.size();
    }
  }
}

TEST_F(Verify, damage_in_many_places_is_told_at_once) {
  const Ram ram = mixed();
  for (const SaveOptions& options : {SaveOptions{}, packed()}) {
    auto bytes = encoded(image_of(ram), ram, options);
    const auto good = decode(MemorySource(bytes), "test");
    flip(bytes, section(*good, "host").offset);
    flip(bytes, section(*good, "cpu/0").offset + 3);
    flip(bytes, section(*good, "isa/uart0").offset - 20);                        // in its name or padding: its header
    flip(bytes, good->ram_offset + (good->ram.encoding == Encoding::mapped ? 130 * kPageSize : 100));
    flip(bytes, bytes.size() - 1);                                               // the commit record
    const std::string all = told(bytes);
    for (const char* each : {"section 'host' does not match", "section 'cpu/0' does not match", "header of the section after", "commit record",
                             "section 'memory/ram' does not match its digests at RAM offsets"})
      EXPECT_NE(all.find(each), std::string::npos) << each << " in\n" << all;
  }
}

TEST_F(Verify, a_cut_file_is_looked_at_as_far_as_it_goes) {
  const Ram ram = mixed();
  auto bytes = encoded(image_of(ram), ram);
  const auto good = decode(MemorySource(bytes), "test");
  flip(bytes, section(*good, "machine").offset);
  bytes.resize(good->ram_offset + 5000);
  const std::string all = told(bytes);
  EXPECT_NE(all.find("incomplete"), std::string::npos) << all;
  EXPECT_NE(all.find("section 'machine' does not match"), std::string::npos) << all;
  for (const u64 size : {u64{0}, u64{10}, u64{63}, u64{64}, u64{100}, bytes.size() / 2}) {
    bytes.resize(size);
    EXPECT_NE(told(bytes), "") << size;
  }
}

TEST_F(Verify, values_are_checked_by_the_schema_in_the_file) {
  const Ram ram = mixed();
  Image image = image_of(ram);
  image.parts[0].schema.fields[0].most = 6;
  image.parts[1].schema.fields[0].mask = 0xff;
  image.machine.schema.fields[0].type = "text";
  const std::string all = told(encoded(image, ram));
  for (const char* each : {"isa/uart0: value is 7 (0x7), allowed is 0 to 6", "cpu/0: value has reserved bits set", "machine: value is of type integer, wanted is text"})
    EXPECT_NE(all.find(each), std::string::npos) << each << " in\n" << all;
}

TEST_F(Verify, without_the_key_stored_bytes_are_checked) {
  const Ram ram = mixed();
  const auto good = encoded(image_of(ram), ram, {.encoding = Encoding::packed, .key = key()});
  const auto found = verify(file(good));
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->file.problems.empty()) << found->file.problems.front().text();
  EXPECT_EQ(found->unchecked.size(), 1u);
  EXPECT_EQ(found->digest, "");
  const auto opened = decode(MemorySource(good), "test", {.key = key()});
  auto bad = good;
  flip(bad, section(*opened, "cpu/0").offset);
  flip(bad, opened->ram.chunks[1].block + 40);
  const std::string all = told(bad);
  EXPECT_NE(all.find("'cpu/0'"), std::string::npos) << all;
  EXPECT_NE(all.find("(chunk 1) does not match its digest"), std::string::npos) << all;
  const auto other = verify(file(good), {.key = key(9)});
  ASSERT_TRUE(other);
  ASSERT_FALSE(other->file.problems.empty());
  EXPECT_EQ(other->file.problems.front().code, ErrorCode::usage);
}

// Blocks as the index says, but not as the format does.
TEST_F(Verify, blocks_must_be_one_after_the_other) {
  const Ram ram = mixed();
  const auto good = encoded(image_of(ram), ram, packed());
  const auto decoded = decode(MemorySource(good), "test");
  const auto problems = [&](const std::vector<u8>& bytes, const RamIndex* index) {
    std::string out;
    for (const Error& each : block_problems(MemorySource(bytes), "test", decoded->ram_offset, decoded->ram_end, index)) out += each.message + "\n";
    return out;
  };
  EXPECT_EQ(problems(good, &decoded->ram), "");
  EXPECT_EQ(problems(good, nullptr), "");
  RamIndex index = decoded->ram;
  index.chunks[1].block += 8;
  EXPECT_NE(problems(good, &index).find("the one before it ends at"), std::string::npos);
  index = decoded->ram;
  index.chunks[2] = {};
  EXPECT_NE(problems(good, &index).find("the one before it ends at"), std::string::npos);
  index = decoded->ram;
  index.chunks[3] = {};
  EXPECT_NE(problems(good, &index).find("does not end the region"), std::string::npos);
  index = decoded->ram;
  index.chunks[0].stored_bytes -= 1;
  EXPECT_NE(problems(good, &index).find("the index says chunk 0 with"), std::string::npos);
  auto bad = good;
  flip(bad, decoded->ram_end - kBlockHeaderSize);  // the magic of the last block
  EXPECT_NE(problems(bad, &decoded->ram), "");
  EXPECT_NE(problems(bad, nullptr), "");
}

TEST_F(Verify, padding_of_blocks_must_be_zero) {
  for (u64 length = 3000; length < 3100; ++length) {  // until the packer leaves some
    Ram ram(64, {5});
    std::iota(ram.bytes.begin(), ram.bytes.begin() + static_cast<std::ptrdiff_t>(length), u8{1});
    ram.bits[0] |= 1;
    auto bytes = encoded(image_of(ram), ram, packed());
    const auto decoded = decode(MemorySource(bytes), "test");
    const ChunkRecord& chunk = decoded->ram.chunks[0];
    if (chunk.stored_bytes % 8 == 0) continue;
    flip(bytes, chunk.block + kBlockHeaderSize + chunk.stored_bytes);
    EXPECT_NE(told(bytes).find("padding"), std::string::npos);
    return;
  }
  FAIL() << "no block with padding";
}

TEST_F(Verify, a_child_needs_its_parent) {
  Ram ram = mixed();
  const std::string parent_path = file(encoded(image_of(ram), ram, packed()), "parent.stasis");
  const auto parent = open(parent_path);
  ASSERT_TRUE(parent);
  ram.bytes[64 * kPageSize] ^= 1;
  const auto child = encoded(image_of(ram), ram, {.encoding = Encoding::packed, .parent = &*parent});
  EXPECT_EQ(told(child), "");
  auto damaged = bytes_of(parent_path);
  flip(damaged, parent->ram.chunks[2].block + 50);
  file(damaged, "parent.stasis");
  std::string all = told(child);
  EXPECT_NE(all.find("parent.stasis: section 'memory/ram' does not match its digests"), std::string::npos) << all;
  EXPECT_NE(all.find("a.stasis: section 'memory/ram' does not match its digests, together"), std::string::npos) << all;
  std::filesystem::remove(parent_path);
  EXPECT_NE(told(child).find("its parent 'parent.stasis'"), std::string::npos);
}

TEST_F(Verify, a_rewritten_file_never_vouches_for_damage) {
  const Ram ram = mixed();
  for (const SaveOptions& options : {SaveOptions{}, packed()}) {
    auto bytes = encoded(image_of(ram), ram, options);
    const auto good = decode(MemorySource(bytes), "test");
    flip(bytes, good->ram_offset + (options.encoding == Encoding::mapped ? 130 * kPageSize : 100));
    const auto from = open(file(bytes));
    ASSERT_TRUE(from);
    const std::string out = folder_ + "/out.stasis";
    const auto written = rewrite(*from, from->image, {.name = out}, packed());
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code, ErrorCode::bad_file);
    EXPECT_FALSE(std::filesystem::exists(out));
  }
}

TEST_F(Verify, rewriting_there_and_back_gives_the_same_bytes) {
  const Ram ram = mixed();
  Image image = image_of(ram);
  image.notes = {{"2025-01-01T00:00:00Z", "ada", "first"}};
  image.foreign = {{"vendor/extra", 3, {1, 2, 3}}};
  const auto bytes = encoded(image, ram);
  const auto from = open(file(bytes));
  ASSERT_TRUE(from);
  ASSERT_TRUE(rewrite(*from, from->image, {.name = folder_ + "/b.stasis"}, {.encoding = Encoding::packed, .key = key()}));
  const auto middle = open(folder_ + "/b.stasis", {.key = key()});
  ASSERT_TRUE(middle);
  ASSERT_TRUE(rewrite(*middle, middle->image, {.name = folder_ + "/c.stasis"}, {}));
  EXPECT_EQ(bytes_of(folder_ + "/c.stasis"), bytes);
}

TEST_F(Verify, a_note_for_which_there_is_no_room_is_refused_and_the_file_stays) {
  const Ram ram(2, {0});
  Image image = image_of(ram);
  const Note long_one{.at = "2025-01-01T00:00:00Z", .by = std::string(4000, 'b'), .text = std::string(4000, 't')};
  image.notes.assign(2083, long_one);
  int refused = 0;
  for (const SaveOptions& options : {SaveOptions{}, SaveOptions{.encoding = Encoding::packed, .key = key()}}) {
    const std::string path = file(encoded(image, ram, options));
    const OpenOptions with_key{.key = key()};
    for (int more = 0; more < 4; ++more) {  // some fit, and what is written is read
      const auto opened_again = open(path, with_key);
      ASSERT_TRUE(opened_again) << opened_again.error().text();
      const auto before_it = bytes_of(path);
      if (const auto noted = annotate(*opened_again, long_one, options.key, 1)) continue;
      EXPECT_EQ(bytes_of(path), before_it);
      ++refused;
      break;
    }
  }
  EXPECT_EQ(refused, 2);
  image.notes.assign(2200, long_one);
  testing::MemorySink sink;
  EXPECT_FALSE(encode(sink, image, ram.source(), nullptr));
}

TEST_F(Verify, a_note_changes_nothing_else) {
  const Ram ram = mixed();
  Image image = image_of(ram);
  image.foreign = {{"vendor/extra", 3, {1, 2, 3}}};
  for (const SaveOptions& options : {SaveOptions{}, packed(), SaveOptions{.encoding = Encoding::packed, .key = key()}}) {
    const std::string path = file(encoded(image, ram, options));
    const OpenOptions with_key{.key = key()};
    for (const char* text : {"first", "second"}) {
      const auto before = open(path, with_key);
      ASSERT_TRUE(before);
      ASSERT_TRUE(annotate(*before, {.at = "2025-01-01T00:00:00Z", .by = "ada", .text = text}, options.key, 1));
      const auto found = verify(path, with_key);
      ASSERT_TRUE(found);
      EXPECT_TRUE(found->file.problems.empty()) << found->file.problems.front().text();
      const Decoded& after = found->file.snapshot;
      EXPECT_EQ(after.ram.content, before->ram.content);
      EXPECT_EQ(after.image.producer, before->image.producer);
      EXPECT_EQ(after.image.foreign, image.foreign);
      EXPECT_EQ(after.image.notes.size(), before->image.notes.size() + 1);
      EXPECT_EQ(after.encrypted, options.key.has_value());
    }
    const auto last = open(path, with_key);
    ASSERT_TRUE(last);
    if (!options.key) EXPECT_EQ(bytes_of(path).size(), [&] {
      Image wanted = image;
      wanted.notes = last->image.notes;
      return encoded(wanted, ram, options).size();
    }());
    EXPECT_FALSE(annotate(*last, {.at = "", .by = "ada", .text = "two\nlines"}, options.key, 1));
    EXPECT_FALSE(annotate(*last, {.at = "", .by = "ada", .text = std::string(5000, 'x')}, options.key, 1));
  }
}

}  // namespace
}  // namespace stasis::snapshot
