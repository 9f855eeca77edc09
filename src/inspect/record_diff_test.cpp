// Records and pages compared.
#include <gtest/gtest.h>

#include "inspect/guest_sample.hpp"
#include "inspect/memory_map.hpp"
#include "inspect/record_diff.hpp"

namespace stasis::inspect {
namespace {

using namespace testing;

state::FieldSchema field(std::string name, std::string type) {
  state::FieldSchema out;
  out.name = std::move(name), out.type = std::move(type);
  return out;
}

snapshot::PartRecord chip(std::string path) {
  state::FieldSchema count = field("count", "u64"), mode = field("mode", "u8"), flags = field("flags", "u16"), channels = field("channels", "record[2]");
  count.unit = "ns", count.help = "since power-on", mode.names = {"off", "on"}, flags.hex = true;
  channels.members = {field("level", "u8")};
  cbor::Map state, low, high;
  low.set("level", u64{1});
  high.set("level", u64{2});
  state.set("count", u64{100});
  state.set("mode", u64{0});
  state.set("flags", u64{0x10});
  state.set("memory", cbor::ByteString(100, 7));
  state.set("channels", cbor::Array{low, high});
  return {std::move(path), {.kind = "test.chip", .version = 1, .fields = {count, mode, flags, field("memory", "u8[100]"), channels}}, state};
}

snapshot::Image image() {
  snapshot::Image out;
  out.machine = chip("machine");
  out.parts = {chip("a"), chip("b")};
  return out;
}

cbor::Map& state_of(snapshot::Image& image, std::size_t part) { return *image.parts[part].state.as<cbor::Map>(); }

TEST(RecordDiff, EqualImagesHaveNone) {
  snapshot::Image a = image(), b = image();
  b.producer.created_at = "2030-01-01T00:00:00Z";
  EXPECT_TRUE(diff_records(a, b).equal());
}

TEST(RecordDiff, SaysFieldsInTheirUnitsAndNames) {
  snapshot::Image a = image(), b = image();
  state_of(b, 0).set("count", u64{150});
  state_of(b, 0).set("mode", u64{1});
  state_of(b, 0).set("flags", u64{0x30});
  const RecordDiff diff = diff_records(a, b);
  ASSERT_EQ(diff.fields.size(), 3u);
  EXPECT_EQ(diff.fields[0].path, "a/count");
  EXPECT_EQ(diff.fields[0].a, "100 ns");
  EXPECT_EQ(diff.fields[0].b, "150 ns");
  EXPECT_EQ(diff.fields[0].note, "+50 ns");
  EXPECT_EQ(diff.fields[0].help, "since power-on");
  EXPECT_EQ(diff.fields[1].b, "on (1)");
  EXPECT_EQ(diff.fields[1].note, "");
  EXPECT_EQ(diff.fields[2].a, "0x10");
  EXPECT_EQ(diff_records(b, a).fields[0].note, "-50 ns");
}

TEST(RecordDiff, GoesIntoArraysAndBytes) {
  snapshot::Image a = image(), b = image();
  (*state_of(b, 1).members().back().second.as<cbor::Array>())[1].as<cbor::Map>()->set("level", u64{9});
  state_of(b, 1).members().back().second.as<cbor::Array>()->push_back(u64{5});
  cbor::ByteString bytes(100, 7);
  bytes[60] = 8, bytes[99] = 9;
  state_of(b, 1).set("memory", bytes);
  const RecordDiff diff = diff_records(a, b);
  ASSERT_EQ(diff.fields.size(), 3u);
  EXPECT_EQ(diff.fields[0].path, "b/memory");
  EXPECT_TRUE(diff.fields[0].b.starts_with("[60] 08 07 07")) << diff.fields[0].b;
  EXPECT_EQ(diff.fields[0].note, "2 of 100 bytes differ");
  state_of(a, 0).set("memory", cbor::ByteString{1, 2});
  state_of(b, 0).set("memory", cbor::ByteString{1, 3});
  EXPECT_EQ(diff_records(a, b).fields[0].b, "01 03");
  EXPECT_EQ(diff.fields[1].path, "b/channels/1/level");
  EXPECT_EQ(diff.fields[2].path, "b/channels/2");
  EXPECT_EQ(diff.fields[2].value_a, nullptr);
}

TEST(RecordDiff, NamesRecordsFieldsAndVersionsOnlyInOne) {
  snapshot::Image a = image(), b = image();
  b.parts[1].path = "c";
  b.parts[0].schema.version = 2;
  b.parts[0].schema.fields.push_back(field("newer", "bool"));
  state_of(b, 0).set("newer", true);
  state_of(b, 0).set("unnamed", u64{1});
  b.machine.state.as<cbor::Map>()->set("count", u64{1});
  const RecordDiff diff = diff_records(a, b);
  EXPECT_EQ(diff.only_in_a, std::vector<std::string>{"b"});
  EXPECT_EQ(diff.only_in_b, std::vector<std::string>{"c"});
  ASSERT_EQ(diff.fields.size(), 4u);
  EXPECT_EQ(diff.fields[0].path, "machine/count");
  EXPECT_EQ(diff.fields[1].path, "a (version)");
  EXPECT_EQ(diff.fields[2].path, "a/newer");
  EXPECT_EQ(diff.fields[2].a, "");
  EXPECT_EQ(diff.fields[2].b, "true");
  EXPECT_EQ(diff.fields[3].path, "a/unnamed");
}

TEST(RamDiff, FindsPagesBytesAndRanges) {
  SampleRam a(kMiB), b(kMiB);
  a.put_text(0x3000, "same"), b.put_text(0x3000, "same");
  a.put_text(0x5000, "abcd"), b.put_text(0x5000, "abxy");
  b.put_text(0x6fff, "z");
  a.put_text(0x9'0000, "gone");
  const auto diff = diff_ram({a.memory()}, {b.memory()});
  ASSERT_TRUE(diff);
  ASSERT_EQ(diff->ranges.size(), 2u);
  EXPECT_EQ(diff->ranges[0].address, 0x5000u);
  EXPECT_EQ(diff->ranges[0].pages, 2u);
  EXPECT_EQ(diff->ranges[0].bytes, 3u);
  EXPECT_EQ(diff->ranges[1].address, 0x9'0000u);
  EXPECT_EQ(diff->bytes, 7u);
  EXPECT_FALSE(diff->equal());
  EXPECT_TRUE(diff_ram({a.memory()}, {a.memory()})->equal());
  SampleRam longer(2 * kMiB);
  EXPECT_EQ(diff_ram({a.memory()}, {longer.memory()})->only_b_bytes, kMiB);
}

TEST(RamDiff, BelievesDigestsOnlyWhereTheSamePagesArePresent) {
  SampleRam a(kMiB), b(kMiB);
  a.put_text(0x5000, "one"), b.put_text(0x5000, "two");
  const std::vector<u8> digests(4 * 16, 1);
  EXPECT_TRUE(diff_ram({a.memory(), digests}, {b.memory(), digests})->equal());  // not read
  b.put_text(0x8000, "new");
  EXPECT_EQ(diff_ram({a.memory(), digests}, {b.memory(), digests})->pages, 2u);
  std::vector<u8> other = digests;
  other[3] = 2;
  SampleRam c(kMiB);
  c.put_text(0x5000, "two");
  EXPECT_EQ(diff_ram({a.memory(), digests}, {c.memory(), other})->pages, 1u);
  EXPECT_EQ(diff_ram({a.memory(), digests}, {c.memory()})->pages, 1u);
}

TEST(RamDiff, NamesTheSymbolsWhoseBytesDiffer) {
  const u64 base = 0xffff'ffff'8100'0000;
  const auto guest = [&](u64 slide, std::string_view jiffies) {
    SampleRam ram(8 * kMiB);
    const u64 address = base + slide;
    ram.entry(0x1000, 511, 0x2000 | kUsable);
    ram.entry(0x2000, address >> 30 & 511, 0x3000 | kUsable);
    ram.entry(0x3000, address >> 21 & 511, 0x40'0000 | 0x80 | kUsable);
    ram.put_text(0x40'0ffc, "stays");
    ram.put_text(0x40'2000, jiffies);
    return ram;
  };
  const SampleRam a = guest(0, "aaaaaaaa"), b = guest(0x20'0000, "aaaabbaa");
  const Symbols symbols = Symbols::from_list({{base + 0xffc, 8, "spans"}, {base + 0x2000, 8, "jiffies"}, {base + 0x2008, 8, "next"}, {base + kGiB, 8, "unmapped"}});
  const PhysicalMemory memory_a = a.memory(), memory_b = b.memory();
  const KernelView kernel_a{memory_a, four_levels(), 0}, kernel_b{memory_b, four_levels(), 0x20'0000};
  snapshot::SaveProgress cancelled{[](u64, u64) { return false; }};
  EXPECT_EQ(changed_symbols(symbols, kernel_a, kernel_b, &cancelled).error().code, ErrorCode::cancelled);
  const auto changes = *changed_symbols(symbols, kernel_a, kernel_b);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].name, "jiffies");
  EXPECT_EQ(changes[0].physical, 0x40'2000u);
  EXPECT_EQ(changes[0].bytes, 2u);
  const auto diff = diff_ram({memory_a}, {memory_b});
  const auto names = by_range(diff->ranges, changes);
  EXPECT_EQ(diff->ranges.back().address, 0x40'2000u);
  EXPECT_EQ(names.back().size(), 1u);
  EXPECT_TRUE(names.front().empty());
}

TEST(MemoryMap, PutsPagesIntoClasses) {
  SampleRam a(kMiB), b(kMiB);
  a.put_text(0x3000, "x");
  std::string noise(kPageSize, ' ');
  u64 random = 1;
  for (char& c : noise) c = static_cast<char>((random = random * 6364136223846793005ull + 1442695040888963407ull) >> 56);
  a.put_text(0x5000, noise);
  a.put_text(0x7000, "code");
  const Mappings mappings{{{0xffff'ffff'8100'0000, 0x7000, kPageSize, true, false, true}, {0xffff'8880'0000'0000, 0, kMiB, true, false, true}}, 0};
  const auto contents = map_contents(a.memory(), mappings, {});
  ASSERT_TRUE(contents);
  const auto at = [&](u64 page) { return static_cast<Content>(contents->classes[page]); };
  EXPECT_EQ(at(0), Content::zero);
  EXPECT_EQ(at(3), Content::packs_well);
  EXPECT_EQ(at(5), Content::packs_little);
  EXPECT_EQ(at(7), Content::kernel_code);
  EXPECT_EQ(contents->pages[0], 253u);
  const auto child = map_contents(a.memory(), mappings, {1u << 5 | 1u << 7, 0, 0, 0});
  EXPECT_EQ(child->pages[static_cast<u8>(Content::in_parent)], 2u);
  EXPECT_EQ(child->classes[3], static_cast<u8>(Content::packs_well));
  b.put_text(0x3000, "y");
  b.put_text(0x7000, "code");
  b.put_text(0x9000, "new");
  const auto changes = map_changes({a.memory()}, {b.memory()});
  const auto then = [&](u64 page) { return static_cast<Change>(changes->classes[page]); };
  EXPECT_EQ(then(0), Change::same_zero);
  EXPECT_EQ(then(3), Change::changed);
  EXPECT_EQ(then(5), Change::vanished);
  EXPECT_EQ(then(7), Change::same);
  EXPECT_EQ(then(9), Change::appeared);
}

}  // namespace
}  // namespace stasis::inspect
