// The encodings of one content: mapped, packed, encrypted, incremental; and what is said of damaged ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "snapshot/format.hpp"
#include "snapshot/ram_hash.hpp"
#include "snapshot_memory.hpp"

namespace stasis::snapshot {
namespace {

using testing::encoded;
using testing::image_of;
using testing::MemorySink;
using testing::MemorySource;
using testing::open_memory;
using testing::Ram;
using testing::ram_of;

Key key(u8 first = 7) {
  std::array<u8, 32> bytes{};
  bytes[0] = first;
  return Key::from_bytes(bytes);
}

SaveOptions packed(int level = 1) { return {.encoding = Encoding::packed, .level = level}; }
SaveOptions sealed() { return {.encoding = Encoding::packed, .key = key()}; }

// 200 pages: random ones, some that a packer can shorten, some equal to others, most of zeros.
Ram mixed_ram() {
  Ram ram(200, {0, 1, 2, 63, 64, 130, 199});
  const auto fill = [&](u64 page, u8 value) {
    std::fill_n(ram.bytes.begin() + static_cast<std::ptrdiff_t>(page * kPageSize), kPageSize, value);
    ram.bits[page / 64] |= 1ull << (page % 64);
  };
  for (u64 page = 10; page < 30; ++page) fill(page, 0x11);
  fill(131, 0x11);
  fill(132, 0x22);
  std::copy_n(ram.bytes.begin() + 64 * 4096, 4096, ram.bytes.begin() + 140 * 4096);
  ram.bits[2] |= 1ull << 12;
  return ram;
}

void write_page(Ram& ram, u64 page, u8 value) {
  std::fill_n(ram.bytes.begin() + static_cast<std::ptrdiff_t>(page * kPageSize), kPageSize, value);
  ram.bits[page / 64] |= 1ull << (page % 64);
}

std::shared_ptr<const OpenSnapshot> shared(Result<OpenSnapshot> opened) {
  STASIS_ASSERT(opened);
  return std::make_shared<const OpenSnapshot>(std::move(*opened));
}

TEST(Encodings, each_gives_the_same_machine) {
  const Ram ram = mixed_ram();
  const Image image = image_of(ram);
  const std::string content = digest(image, ram.source());
  for (const SaveOptions& options : {SaveOptions{}, packed(0), packed(1), packed(19), sealed()}) {
    const auto bytes = encoded(image, ram, options);
    const auto back = open_memory(bytes, {.key = key()});
    ASSERT_TRUE(back) << back.error().text();
    EXPECT_EQ(back->nonzero, ram.bits);
    EXPECT_EQ(hex(back->ram.content), content);
    EXPECT_EQ(*ram_of(*back), ram.bytes);
    EXPECT_TRUE(verify_ram(*back));
    const auto found = digest(*back);
    ASSERT_TRUE(found) << found.error().text();
    EXPECT_EQ(*found, content);
    EXPECT_EQ(back->image.machine, image.machine);
  }
}

// More chunks than are under way at once.
TEST(Encodings, a_file_does_not_depend_on_the_number_of_threads) {
  Ram ram(300 * kChunkPages);
  for (u64 page = 0; page < 300 * kChunkPages; page += 37) write_page(ram, page, static_cast<u8>(1 + page % 251));
  for (const u64 chunk : {3, 70, 71, 299}) std::ranges::fill(std::span(ram.bytes).subspan(chunk * kChunkBytes + 17, 9), 0xee);
  for (u64 chunk = 0; chunk < 300; ++chunk) ram.bits[chunk] = ~0ull;
  const Image image = image_of(ram);
  const auto parent = shared(open_memory(encoded(image, ram, packed())));
  write_page(ram, 5, 0x77);
  write_page(ram, 250 * kChunkPages, 0x77);  // the same again, in another batch
  for (SaveOptions options : {SaveOptions{}, packed(), SaveOptions{.encoding = Encoding::packed, .parent = parent.get()}}) {
    options.threads = 1;
    const auto one = encoded(image, ram, options);
    options.threads = 5;
    EXPECT_TRUE(encoded(image, ram, options) == one);
    const auto back = open_memory(one, {}, options.parent ? parent : nullptr);
    ASSERT_TRUE(back) << back.error().text();
    EXPECT_TRUE(*ram_of(*back) == ram.bytes);
    for (u64 room = 100; room < one.size(); room += one.size() / 20) {
      MemorySink sink;
      sink.room = room;
      const auto report = encode(sink, image, ram.source(), nullptr, options);
      ASSERT_FALSE(report);
      EXPECT_EQ(report.error().code, ErrorCode::host);
    }
  }
}

TEST(Encodings, equal_pages_are_held_once) {
  const Ram ram = mixed_ram();
  MemorySink sink;
  const auto report = encode(sink, image_of(ram), ram.source(), nullptr, packed(0));
  ASSERT_TRUE(report);
  EXPECT_EQ(report->pages_nonzero, 30u);
  EXPECT_EQ(report->pages_present, 9u);  // seven random ones, one of 0x11, one of 0x22
}

TEST(Encodings, packed_files_do_not_say_their_length_before_their_end) {
  const Ram ram = mixed_ram();
  const auto bytes = encoded(image_of(ram), ram, packed());
  EXPECT_EQ(header_from(Bytes(bytes).first(64), "test")->length, 0u);
  EXPECT_LT(bytes.size(), 9 * kPageSize + 4000);
}

TEST(Encodings, nothing_of_an_encrypted_machine_is_legible) {
  Ram ram(70);
  Image image = image_of(ram);
  image.host[0].hint = "a secret place, with a secret name";
  for (u64 page = 0; page < 3; ++page) write_page(ram, page, static_cast<u8>(0x41 + page));
  const auto bytes = encoded(image, ram, sealed());
  const std::string text(bytes.begin(), bytes.end());
  EXPECT_EQ(text.find("secret"), text.npos);
  EXPECT_EQ(text.find(std::string(64, 'A')), text.npos);
  EXPECT_NE(text.find("0.1.0"), text.npos) << "the producer is for everybody";
  EXPECT_NE(encoded(image, ram, sealed()), bytes) << "two saves have two salts";
}

TEST(Encodings, a_wrong_key_and_no_key_are_told_from_damage) {
  const Ram ram(70, {3});
  const auto bytes = encoded(image_of(ram), ram, sealed());
  const auto without = open_memory(bytes);
  ASSERT_FALSE(without);
  EXPECT_EQ(without.error().code, ErrorCode::usage);
  EXPECT_NE(without.error().text().find("is encrypted (written by stasis 0.1.0"), std::string::npos) << without.error().text();
  const auto wrong = open_memory(bytes, {.key = key(8)});
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().text().find("was encrypted with another key"), std::string::npos) << wrong.error().text();
  EXPECT_TRUE(identify(MemorySource(bytes), "test")->encrypted);
}

TEST(Encodings, mapped_ones_cannot_be_encrypted) {
  const Ram ram(1);
  MemorySink sink;
  const auto report = encode(sink, image_of(ram), ram.source(), nullptr, {.key = key()});
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::usage);
}

class Chain : public ::testing::TestWithParam<Encoding> {};
INSTANTIATE_TEST_SUITE_P(All, Chain, ::testing::Values(Encoding::mapped, Encoding::packed));

TEST_P(Chain, a_child_holds_what_changed_and_gives_the_whole) {
  Ram ram = mixed_ram();
  const Image image = image_of(ram);
  auto parent = shared(open_memory(encoded(image, ram, {.encoding = GetParam()})));
  for (u8 generation = 1; generation <= 50; ++generation) {
    write_page(ram, (generation * 37u) % 200, generation);
    write_page(ram, 5, static_cast<u8>(generation / 2));
    if (generation % 7 == 0) write_page(ram, 64, 0);  // a page becomes zero: no hole must show the parent's
    if (generation % 7 == 3) write_page(ram, 64, 0x77);
    const SaveOptions options{.encoding = generation % 3 ? GetParam() : Encoding::packed, .parent = parent.get()};
    MemorySink sink;
    const auto report = encode(sink, image, ram.source(), nullptr, options);
    ASSERT_TRUE(report) << report.error().text();
    EXPECT_LE(report->pages_present, 4u);
    auto child = open_memory(sink.bytes, {}, parent);
    ASSERT_TRUE(child) << child.error().text();
    EXPECT_EQ(child->parent_link->content, parent->ram.content);
    EXPECT_EQ(*ram_of(*child), ram.bytes);
    EXPECT_EQ(report->digest, digest(image, ram.source()));
    const auto checked = digest(*child);
    ASSERT_TRUE(checked) << checked.error().text();
    EXPECT_EQ(*checked, report->digest);
    parent = shared(std::move(child));
  }
}

TEST_P(Chain, what_is_known_to_be_clean_is_not_read) {
  Ram ram = mixed_ram();
  const Image image = image_of(ram);
  const auto parent = shared(open_memory(encoded(image, ram, {.encoding = GetParam()})));
  write_page(ram, 70, 1);
  const std::vector<u64> dirty{0, 1ull << 6, 0, 0};
  Ram same = ram;
  same.bytes[0] ^= 1;  // a lie: page 0 changed too, but is said to be clean
  const SaveOptions options{.encoding = GetParam(), .parent = parent.get(), .dirty = &dirty};
  MemorySink sink;
  const auto report = encode(sink, image, same.source(), nullptr, options);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->pages_present, 1u);
  EXPECT_EQ(report->digest, digest(image, ram.source()));
  EXPECT_EQ(*ram_of(*open_memory(sink.bytes, {}, parent)), ram.bytes);
}

TEST_P(Chain, equal_digests_alone_are_not_equal_pages) {
  Ram ram = mixed_ram();
  const Image image = image_of(ram);
  auto parent = *open_memory(encoded(image, ram, {.encoding = GetParam()}));
  write_page(ram, 0, 1);
  const std::vector<u64> dirty{1, 0, 0, 0};
  parent.ram.chunks[0].content = hash_chunk(ram.bytes.data(), ram.bits[0]).content;  // as if the guest had made them collide
  const auto opened = shared(std::move(parent));
  for (const std::vector<u64>* known : {static_cast<const std::vector<u64>*>(nullptr), &dirty})
    EXPECT_EQ(*ram_of(*open_memory(encoded(image, ram, {.encoding = GetParam(), .parent = opened.get(), .dirty = known}), {}, opened)), ram.bytes);
}

TEST_P(Chain, what_was_written_to_and_is_as_before_is_left_to_the_parent) {
  const Ram ram = mixed_ram();
  const auto parent = shared(open_memory(encoded(image_of(ram), ram, {.encoding = GetParam()})));
  const std::vector<u64> dirty(4, ~0ull);
  MemorySink sink;
  const auto report = encode(sink, image_of(ram), ram.source(), nullptr, {.encoding = GetParam(), .parent = parent.get(), .dirty = &dirty});
  ASSERT_TRUE(report);
  EXPECT_EQ(report->pages_present, 0u);
}

TEST_P(Chain, ram_over_its_root_is_the_same) {
  Ram ram = mixed_ram();
  const Image image = image_of(ram);
  const auto parent = shared(open_memory(encoded(image, ram, {.encoding = GetParam()})));
  std::vector<u8> memory = ram.bytes;
  write_page(ram, 64, 0);
  write_page(ram, 90, 9);
  const auto child = shared(open_memory(encoded(image, ram, {.encoding = GetParam(), .parent = parent.get()}), {}, parent));
  write_page(ram, 0, 3);
  const auto grandchild = open_memory(encoded(image, ram, {.encoding = GetParam(), .parent = child.get()}), {}, child);
  ASSERT_TRUE(load_ram(*grandchild, memory.data(), true));
  EXPECT_EQ(memory, ram.bytes);
}

TEST_P(Chain, a_long_record_is_held_once) {
  Ram ram = mixed_ram();
  Image image = image_of(ram);
  image.parts[0].state.as<cbor::Map>()->set("kernel", cbor::ByteString(200 * kKiB, 7));
  const SaveOptions as_parent{.encoding = GetParam(), .key = GetParam() == Encoding::packed ? std::optional(key()) : std::nullopt};
  const auto parent = shared(open_memory(encoded(image, ram, as_parent), {.key = key()}));
  write_page(ram, 70, 1);
  const auto bytes = encoded(image, ram, {.encoding = Encoding::packed, .parent = parent.get()});
  EXPECT_LT(bytes.size(), 10'000u);
  const auto child = shared(open_memory(bytes, {.key = key()}, parent));
  EXPECT_EQ(child->image.parts.size(), 3u);
  std::ranges::sort(image.parts, {}, &PartRecord::path);
  EXPECT_EQ(child->image.parts, image.parts);
  EXPECT_EQ(*digest(*child), digest(image, ram.source()));
  const auto grandchild = open_memory(encoded(image, ram, {.encoding = Encoding::packed, .parent = child.get()}), {.key = key()}, child);
  ASSERT_TRUE(grandchild) << grandchild.error().text();
  EXPECT_EQ(grandchild->image.parts, image.parts);
  image.parts.back().state.as<cbor::Map>()->set("kernel", cbor::ByteString(200 * kKiB, 8));
  EXPECT_GT(encoded(image, ram, {.encoding = Encoding::packed, .level = 0, .parent = parent.get()}).size(), 200'000u) << "another kernel is held again";
}

TEST_P(Chain, a_child_of_too_many_ancestors_is_refused_when_it_is_written) {
  Ram ram = mixed_ram();
  const Image image = image_of(ram);
  auto parent = std::make_shared<OpenSnapshot>(std::move(*open_memory(encoded(image, ram, {.encoding = GetParam()}))));
  std::shared_ptr<OpenSnapshot> oldest = parent;
  for (u64 i = 1; i < kMostAncestors; ++i) {
    auto older = std::make_shared<OpenSnapshot>();
    oldest->parent = older;
    oldest = older;
  }
  const auto save = [&] {
    MemorySink sink;
    return encode(sink, image, ram.source(), nullptr, {.encoding = GetParam(), .parent = parent.get()});
  };
  EXPECT_TRUE(save());
  oldest->parent = std::make_shared<OpenSnapshot>();
  const auto refused = save();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::usage);
  EXPECT_NE(refused.error().text().find("squash"), std::string::npos) << refused.error().text();
}

TEST_P(Chain, without_its_parent_a_child_says_so) {
  Ram ram = mixed_ram();
  const Image image = image_of(ram);
  const auto parent = shared(open_memory(encoded(image, ram, {.encoding = GetParam()})));
  write_page(ram, 70, 1);
  const auto alone = open_memory(encoded(image, ram, {.encoding = GetParam(), .parent = parent.get()}));
  ASSERT_TRUE(alone);
  const auto loaded = ram_of(*alone);
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().text().find("is incremental, and its parent 'test' is not open"), std::string::npos) << loaded.error().text();
}

TEST_P(Chain, an_encrypted_child_has_an_encrypted_parent) {
  const Ram ram = mixed_ram();
  const auto parent = shared(open_memory(encoded(image_of(ram), ram, {.encoding = GetParam()})));
  MemorySink sink;
  const auto saved = encode(sink, image_of(ram), ram.source(), nullptr, {.encoding = Encoding::packed, .key = key(), .parent = parent.get()});
  ASSERT_FALSE(saved);
  EXPECT_EQ(saved.error().code, ErrorCode::usage);
}

TEST(Encodings, another_size_of_ram_is_no_parent) {
  const Ram ram(70), other(71);
  const auto parent = open_memory(encoded(image_of(other), other));
  MemorySink sink;
  EXPECT_FALSE(encode(sink, image_of(ram), ram.source(), nullptr, {.parent = &*parent}));
}

// A flipped bit anywhere is refused, by decode() or by verify_ram(), or it is in what no reader looks at.
void every_flip_is_refused_or_harmless(const std::vector<u8>& good, const OpenOptions& options, std::shared_ptr<const OpenSnapshot> parent) {
  const auto original = open_memory(good, options, parent);
  ASSERT_TRUE(original);
  const std::string content = *digest(*original);
  std::size_t harmless = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    auto bytes = good;
    bytes[at] ^= static_cast<u8>(1u << (at % 8));
    const auto back = open_memory(bytes, options, parent);
    if (!back) continue;
    const auto found = digest(*back);
    if (!found) continue;
    ++harmless;
    ASSERT_EQ(*found, content) << "byte " << at;
  }
  EXPECT_LT(harmless, 64u) << "only padding between blocks and the block that ends them may be of no account";
}

TEST(Encodings, every_flipped_bit_of_a_packed_file_is_found) {
  Ram ram(70, {3});
  write_page(ram, 65, 3);
  write_page(ram, 66, 3);
  every_flip_is_refused_or_harmless(encoded(image_of(ram), ram, packed()), {}, nullptr);
}

TEST(Encodings, every_flipped_bit_of_an_encrypted_file_is_found) {
  Ram ram(70, {3});
  write_page(ram, 65, 3);
  every_flip_is_refused_or_harmless(encoded(image_of(ram), ram, sealed()), {.key = key()}, nullptr);
}

TEST_P(Chain, every_flipped_bit_of_a_child_is_found) {
  Ram ram(3, {0, 2});
  const auto parent = shared(open_memory(encoded(image_of(ram), ram)));
  write_page(ram, 1, 3);
  every_flip_is_refused_or_harmless(encoded(image_of(ram), ram, {.encoding = GetParam(), .parent = parent.get()}), {}, parent);
}

TEST(Encodings, sections_of_an_encrypted_file_cannot_be_exchanged) {
  const Ram ram(3, {1});
  Image image = image_of(ram);
  const auto bytes = encoded(image, ram, sealed());
  // A file without its notes would still be whole, if nothing bound the sections together.
  image.notes.push_back({"2025-01-02T03:04:05Z", "somebody", "a word"});
  ASSERT_TRUE(open_memory(encoded(image, ram, sealed()), {.key = key()}));
  auto cut = bytes;
  std::fill(cut.end() - 64 - 32, cut.end() - 64, u8{0});  // the seal
  EXPECT_FALSE(open_memory(cut, {.key = key()}));
}

TEST(Encodings, notes_and_foreign_sections_are_carried_along) {
  const Ram ram(3, {1});
  Image image = image_of(ram);
  image.notes = {{"2025-01-02T03:04:05Z", "stasis 1.0.0", "set cpu/0/value"}};
  image.foreign = {{"working-set", 4, {1, 2, 3}}};
  for (const SaveOptions& options : {SaveOptions{}, packed(), sealed()}) {
    const auto back = open_memory(encoded(image, ram, options), {.key = key()});
    ASSERT_TRUE(back) << back.error().text();
    EXPECT_EQ(back->image.notes, image.notes);
    EXPECT_EQ(back->image.foreign, image.foreign);
  }
}

TEST(Encodings, long_records_can_be_left_out) {
  const Ram ram(3, {1});
  Image image = image_of(ram);
  image.parts[0].state.as<cbor::Map>()->set("kernel", cbor::ByteString(2 * kMiB, 7));
  const auto bytes = encoded(image, ram);
  const auto back = open_memory(bytes, {.bulk = false});
  ASSERT_TRUE(back) << back.error().text();
  const auto part = std::ranges::find(back->image.parts, "isa/uart0", &PartRecord::path);
  EXPECT_TRUE(part->left_out);
  EXPECT_EQ(part->schema.kind, "ns16550");
  EXPECT_EQ(hex(back->ram.content), digest(image, ram.source()));
  EXPECT_EQ(*digest(*open_memory(bytes)), digest(image, ram.source()));
}

// Loading and saving again gives the same bytes, so there are none that nobody looks at.
TEST(Encodings, every_byte_of_an_index_has_a_meaning) {
  RamIndex index{.encoding = Encoding::packed, .incremental = true, .pages = 3};
  index.chunks = {{.nonzero = 1, .in_parent = 1, .content = {1}}};
  const auto read = [&](std::size_t at, u8 byte) {
    cbor::Value value = to_value(index);
    for (auto& [name, member] : value.as<cbor::Map>()->members())
      if (name == "chunks") member.as<cbor::ByteString>()->at(at) |= byte;
    return ram_index_from(value, 3, true, "test");
  };
  EXPECT_TRUE(read(71, 0));
  const auto reserved = read(71, 1), digest_of_none = read(40, 1);
  ASSERT_FALSE(reserved);
  EXPECT_NE(reserved.error().text().find("chunk 0 has reserved bytes that are not zero"), std::string::npos) << reserved.error().text();
  ASSERT_FALSE(digest_of_none);
  EXPECT_NE(digest_of_none.error().text().find("chunk 0 has a digest for no pages of its own"), std::string::npos) << digest_of_none.error().text();
}

}  // namespace
}  // namespace stasis::snapshot
