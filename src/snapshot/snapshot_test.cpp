// Tests of the encoder and decoder in memory: round trips, damage, versions, and the digests.
#include <gtest/gtest.h>

#include <algorithm>

#include "snapshot/examine.hpp"
#include "snapshot/format.hpp"
#include "snapshot_memory.hpp"

namespace stasis::snapshot {
namespace {

using testing::encoded;
using testing::image_of;
using testing::MemorySink;
using testing::MemorySource;
using testing::open_memory;
using testing::Ram;

Result<Decoded> decoded(const std::vector<u8>& bytes) { return decode(MemorySource(bytes), "test"); }

// A snapshot taken apart, to be put together differently with right digests.
struct Piece {
  SectionHeader header;
  std::vector<u8> body;
};
struct Pieces {
  FileHeader header;
  std::vector<Piece> sections;

  explicit Pieces(const std::vector<u8>& bytes) {
    const auto good = decode(MemorySource(bytes), "test");
    STASIS_ASSERT(good);
    header = *header_from(Bytes(bytes).first(64), "test");
    for (const SectionInfo& info : good->sections) {
      Piece piece{{.name = info.name, .version = info.version, .flags = info.critical ? u32{kCritical} : 0}, {}};
      if (info.name == kRam) piece.header.flags |= kRegion, piece.header.alignment = kPageSize;
      piece.body.assign(bytes.begin() + static_cast<std::ptrdiff_t>(info.offset), bytes.begin() + static_cast<std::ptrdiff_t>(info.offset + info.length));
      sections.push_back(std::move(piece));
    }
  }
  Piece& named(std::string_view name) { return *std::ranges::find(sections, name, [](const Piece& p) { return p.header.name; }); }
  void remove(std::string_view name) { std::erase_if(sections, [&](const Piece& p) { return p.header.name == name; }); }

  std::vector<u8> bytes() const {
    std::vector<u8> out(kHeaderSize);
    std::vector<std::vector<u8>> headers;
    CommitRecord commit{.sections = static_cast<u32>(sections.size())};
    for (const Piece& piece : sections) {
      SectionHeader section = piece.header;
      section.length = piece.body.size();
      if (!(section.flags & kRegion)) section.digest = digest_of(piece.body);
      if (section.name == kRamIndex) commit.index_offset = out.size();
      const u64 body = section.body_offset(out.size()), end = section.end(out.size());
      headers.push_back(to_bytes(section));
      out.insert(out.end(), headers.back().begin(), headers.back().end());
      out.resize(body);
      out.insert(out.end(), piece.body.begin(), piece.body.end());
      out.resize(end);
    }
    FileHeader first = header;
    first.length = commit.length = out.size() + kCommitSize;
    std::ranges::copy(to_bytes(first), out.begin());
    Hasher root;
    root.add(to_bytes(first));
    for (const auto& each : headers) root.add(each);
    commit.root = root.result();
    std::ranges::copy(to_bytes(commit), std::back_inserter(out));
    return out;
  }
};

void expect_refused(const std::vector<u8>& bytes, ErrorCode code, std::string_view part_of_text) {
  const auto result = decoded(bytes);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, code) << result.error().text();
  EXPECT_NE(result.error().text().find(part_of_text), std::string::npos) << result.error().text();
}

TEST(Snapshot, comes_back_as_it_went) {
  const Ram ram(200, {0, 1, 2, 63, 64, 130, 199});
  Image image = image_of(ram);
  const auto bytes = encoded(image, ram);
  const auto back = decoded(bytes);
  ASSERT_TRUE(back) << back.error().text();
  std::ranges::sort(image.parts, {}, &PartRecord::path);
  EXPECT_EQ(back->image.producer, image.producer);
  EXPECT_EQ(back->image.machine, image.machine);
  EXPECT_EQ(back->image.host, image.host);
  EXPECT_EQ(back->image.parts, image.parts);
  EXPECT_EQ(back->image.ram_size, ram.bytes.size());
  EXPECT_EQ(back->nonzero, ram.bits);
  EXPECT_EQ(back->ram_offset % kPageSize, 0u);
  EXPECT_TRUE(std::equal(ram.bytes.begin(), ram.bytes.end(), bytes.begin() + static_cast<std::ptrdiff_t>(back->ram_offset)));
  EXPECT_TRUE(verify_ram(*open_memory(bytes)));
}

TEST(Snapshot, save_load_save_is_byte_identical) {
  const Ram ram(70, {3, 4, 69});
  const auto first = encoded(image_of(ram), ram);
  const auto back = decoded(first);
  ASSERT_TRUE(back);
  EXPECT_EQ(encoded(back->image, ram), first);
}

TEST(Snapshot, pages_that_may_be_nonzero_and_are_not_make_no_difference) {
  const Ram ram(130, {5, 100});
  Ram more = ram;
  std::ranges::fill(more.bits, ~0ull);  // bits after the last page, too
  EXPECT_EQ(encoded(image_of(ram), ram), encoded(image_of(more), more));
  EXPECT_EQ(digest(image_of(ram), ram.source()), digest(image_of(more), more.source()));
}

TEST(Snapshot, runs_longer_than_one_write_and_alternating_pages) {
  std::vector<u64> filled;
  for (u64 page = 10; page < 900; ++page) filled.push_back(page);
  for (u64 page = 901; page < 1100; page += 2) filled.push_back(page);
  const Ram ram(1100, filled);
  const auto bytes = encoded(image_of(ram), ram);
  const auto back = decoded(bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->nonzero, ram.bits);
  EXPECT_TRUE(std::equal(ram.bytes.begin(), ram.bytes.end(), bytes.begin() + static_cast<std::ptrdiff_t>(back->ram_offset)));
  EXPECT_TRUE(verify_ram(*open_memory(bytes)));
}

TEST(Snapshot, digest_is_of_guest_visible_state_only) {
  Ram ram(70, {3, 4, 69});
  Image image = image_of(ram);
  const std::string before = digest(image, ram.source());
  EXPECT_EQ(before.size(), 32u);
  const auto bytes = encoded(image, ram);
  EXPECT_EQ(*digest(*open_memory(bytes)), before);
  MemorySink sink;
  EXPECT_EQ(encode(sink, image, ram.source(), nullptr)->digest, before);

  Image other = image;
  other.producer = {.program = "other", .version = "9", .created_at = "never", .uuid = {9}};
  other.parts[0].schema.fields[0].help = "what it means";
  other.host.clear();
  std::ranges::reverse(other.parts);
  EXPECT_EQ(digest(other, ram.source()), before);

  other = image;
  other.parts[0].state.as<cbor::Map>()->set("value", u64{8});
  EXPECT_NE(digest(other, ram.source()), before);
  other = image;
  other.parts[0].path = "isa/uart1";
  EXPECT_NE(digest(other, ram.source()), before);
  Ram moved(70);  // the same pages elsewhere
  moved.bits = {1ull << 3 | 1ull << 5, 1ull << 5};
  for (auto [from, to] : {std::pair{3u, 3u}, {4u, 5u}, {69u, 69u}})
    std::copy_n(ram.bytes.begin() + from * 4096, 4096, moved.bytes.begin() + to * 4096);
  EXPECT_NE(digest(image, moved.source()), before);
  ram.bytes[3 * 4096] ^= 1;
  EXPECT_NE(digest(image, ram.source()), before);
}

TEST(Snapshot, every_flipped_byte_is_found_and_the_place_is_named) {
  const Ram ram(3, {0, 2});
  const auto good = encoded(image_of(ram), ram);
  const auto layout = decoded(good);
  ASSERT_TRUE(layout);
  MemorySource source(good);
  for (std::size_t at = 0; at < good.size(); ++at) {
    const u8 flip = static_cast<u8>(at % 3 == 0 ? 0xff : 1u << (at % 8));
    source.bytes[at] ^= flip;
    const bool in_ram = at >= layout->ram_offset && at < layout->ram_offset + ram.bytes.size();
    const auto result = in_ram && at % 64 ? layout : decode(source, "test");
    if (in_ram) {
      ASSERT_TRUE(result) << "RAM was read by decode(), byte " << at;
      const auto checked = verify_ram(*open_memory(source.bytes));
      ASSERT_FALSE(checked) << "byte " << at;
      ASSERT_NE(checked.error().text().find("memory/ram"), std::string::npos);
    } else {
      ASSERT_FALSE(result) << "byte " << at;
      ASSERT_EQ(result.error().code, at >= 12 ? ErrorCode::bad_file : result.error().code) << "byte " << at;
      const std::string text = result.error().text();
      for (const SectionInfo& section : layout->sections)  // damage in a body names the section
        if (section.name != kRam && at >= section.offset && at < section.offset + section.length) {
          ASSERT_NE(text.find(section.name), std::string::npos) << "byte " << at << ": " << text;
        }
      ASSERT_TRUE(text.find("section") != text.npos || at < 64 || at >= good.size() - 64) << "byte " << at << ": " << text;
    }
    source.bytes[at] ^= flip;
  }
}

TEST(Snapshot, every_truncation_is_refused) {
  const Ram ram(3, {0, 2});
  const auto good = encoded(image_of(ram), ram);
  for (std::size_t size = 0; size < good.size(); size += size < 6000 ? 1 : 97) {
    const auto result = decoded({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)});
    ASSERT_FALSE(result) << size;
    ASSERT_EQ(result.error().code, ErrorCode::bad_file);
    if (size >= 12) {
      ASSERT_NE(result.error().text().find("the file is incomplete"), std::string::npos) << result.error().text();
    }
  }
  auto longer = good;
  longer.resize(good.size() + 8);
  expect_refused(longer, ErrorCode::bad_file, "8 bytes follow the end");
}

TEST(Snapshot, without_commit_record_it_is_incomplete) {
  const Ram ram(3, {0});
  auto bytes = encoded(image_of(ram), ram);
  std::fill(bytes.end() - 64, bytes.end(), u8{0});
  expect_refused(bytes, ErrorCode::bad_file, "the file is incomplete: it has no commit record");
}

TEST(Snapshot, foreign_and_mangled_files_are_told_apart) {
  const Ram ram(1, {0});
  const auto good = encoded(image_of(ram), ram);
  expect_refused({}, ErrorCode::bad_file, "is empty");
  expect_refused({0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0}, ErrorCode::bad_file, "not a Stasis snapshot: its first bytes are 7f 45 4c 46");
  auto unix_lines = good;  // CR LF became LF
  unix_lines.erase(unix_lines.begin() + 7);
  expect_refused(unix_lines, ErrorCode::bad_file, "binary mode");
  auto dos_lines = good;  // LF became CR LF
  dos_lines.insert(dos_lines.begin() + 8, '\r');
  expect_refused(dos_lines, ErrorCode::bad_file, "binary mode");
  auto seven_bits = good;
  for (u8& byte : seven_bits) byte &= 0x7f;
  expect_refused(seven_bits, ErrorCode::bad_file, "binary mode");
}

TEST(Snapshot, a_future_format_says_who_wrote_it_and_when) {
  const Ram ram(1, {0});
  Pieces pieces(encoded(image_of(ram), ram));
  ASSERT_TRUE(decoded(pieces.bytes()));
  pieces.header.major = 7;
  const auto bytes = pieces.bytes();
  expect_refused(bytes, ErrorCode::unsupported, "has format 7.0 (written by stasis 0.1.0 at 2025-01-02T03:04:05Z), this Stasis reads formats up to 1.x");
  const auto who = identify(MemorySource(bytes), "test");
  ASSERT_TRUE(who);
  EXPECT_EQ(who->format_major, 7);
  EXPECT_EQ(who->producer.version, "0.1.0");
  EXPECT_TRUE(who->complete);
  pieces.header.major = kFormatMajor;
  pieces.header.minor = 99;
  EXPECT_TRUE(decoded(pieces.bytes())) << "a newer minor version adds only what may be skipped or is critical";
  pieces.header.flags = 4;
  expect_refused(pieces.bytes(), ErrorCode::unsupported, "header flags 0x4");
}

TEST(Snapshot, unknown_sections_are_skipped_or_refused_by_name) {
  const Ram ram(1, {0});
  Pieces pieces(encoded(image_of(ram), ram));
  pieces.sections.push_back({{.name = "note", .version = 3, .flags = 0}, {1, 2, 3}});
  const auto with_note = decoded(pieces.bytes());
  ASSERT_TRUE(with_note) << with_note.error().text();
  EXPECT_FALSE(with_note->sections.back().known);
  pieces.sections.back().header.flags = kCritical;
  pieces.sections.insert(pieces.sections.begin() + 5, {{.name = "pci/bridge", .flags = kCritical}, {1}});
  expect_refused(pieces.bytes(), ErrorCode::unsupported, "section 'pci/bridge' is unknown here and must be understood");
  expect_refused(pieces.bytes(), ErrorCode::unsupported, "section 'note' is unknown here");  // both are named
}

TEST(Snapshot, texts_are_no_commands_to_a_terminal) {
  const Ram ram(1, {0});
  Image image = image_of(ram);
  image.producer.program = "stasis\x1b[2J";
  expect_refused(encoded(image, ram), ErrorCode::bad_file, "the text 'stasis\\x1b[2J' has control characters");
  image = image_of(ram);
  image.parts[0].schema.kind += "\n";
  expect_refused(encoded(image, ram), ErrorCode::bad_file, "has control characters");
}

TEST(Snapshot, newer_sections_and_flags_are_refused_by_name) {
  const Ram ram(1, {0});
  Pieces pieces(encoded(image_of(ram), ram));
  pieces.named("cpu/0").header.version = 2;
  expect_refused(pieces.bytes(), ErrorCode::unsupported, "section 'cpu/0' has version 2");
  pieces.named("cpu/0").header.version = 1;
  pieces.named("host").header.flags |= 16;
  expect_refused(pieces.bytes(), ErrorCode::unsupported, "section 'host' has flags 0x11");
}

TEST(Snapshot, missing_doubled_and_misplaced_sections_are_refused) {
  const Ram ram(1, {0});
  const auto good = encoded(image_of(ram), ram);
  for (const char* name : {"producer", "machine", "parts", "host", "cpu/0", "memory/ram", "memory/ram/index"}) {
    Pieces pieces(good);
    pieces.remove(name);
    const auto result = decoded(pieces.bytes());
    ASSERT_FALSE(result) << name;
  }
  Pieces twice(good);
  twice.sections.push_back(twice.named("host"));
  expect_refused(twice.bytes(), ErrorCode::bad_file, "section 'host' is there twice");
  Pieces late(good);
  std::ranges::rotate(late.sections, std::ranges::find(late.sections, "machine", [](const Piece& p) { return p.header.name; }) + 1);
  expect_refused(late.bytes(), ErrorCode::bad_file, "section");
}

TEST(Snapshot, a_part_that_comes_before_the_list_of_parts_is_refused) {
  const Ram ram(1, {0});
  for (const u16 major : {u16{0}, u16{1}}) {  // 0.1 computes what 1.0 says, part by part
    Pieces pieces(encoded(image_of(ram), ram));
    pieces.header.major = major;
    Piece early = pieces.named("cpu/0");
    early.header.flags = 0;  // else it would be refused as unknown and critical
    pieces.remove("cpu/0");
    pieces.sections.insert(pieces.sections.begin() + 1, early);
    expect_refused(pieces.bytes(), ErrorCode::bad_file, "section 'cpu/0' comes before 'parts'");
    EXPECT_FALSE(examine(MemorySource(pieces.bytes()), "test", {}).problems.empty());
  }
}

TEST(Snapshot, a_doubled_region_of_another_size_is_not_taken) {
  const Ram ram(200, {0, 199});
  Pieces pieces(encoded(image_of(ram), ram));
  Piece second = pieces.named("memory/ram");
  second.body.resize(kPageSize);
  pieces.sections.push_back(second);
  const auto found = examine(MemorySource(pieces.bytes()), "test", {});
  EXPECT_FALSE(found.problems.empty());
  EXPECT_EQ(found.decoded.image.ram_size, found.decoded.ram.pages * kPageSize);
}

TEST(Snapshot, hostile_bodies_are_refused_before_they_cost_memory) {
  const Ram ram(1, {0});
  const auto good = encoded(image_of(ram), ram);
  Pieces many(good);
  many.named("host").body.assign(5'000'000, 0);  // an array of five million zeros
  std::ranges::copy(std::array<u8, 5>{0x9a, 0, 0x4c, 0x4b, 0x3b}, many.named("host").body.begin());
  expect_refused(many.bytes(), ErrorCode::bad_file, "holds more than 1048576 values");
  Pieces large(good);
  large.named("producer").body.assign(17 * kMiB, 0);
  expect_refused(large.bytes(), ErrorCode::bad_file, "allowed are 16777216");
  Pieces kinds(good);
  kinds.named("cpu/0").body = kinds.named("isa/uart0").body;
  expect_refused(kinds.bytes(), ErrorCode::bad_file, "is ns16550 version 1, section 'parts' says x86.vcpu version 1");
  Pieces index(good);
  index.named("memory/ram/index").body = cbor::encode(cbor::Map{});
  expect_refused(index.bytes(), ErrorCode::bad_file, "memory/ram/index': field 'encoding' is missing");
}

TEST(Snapshot, a_length_near_the_end_of_numbers_does_not_wrap) {
  const Ram ram(1, {0});
  auto bytes = encoded(image_of(ram), ram);
  SectionHeader huge{.name = "producer", .length = ~0ull - 100};
  std::ranges::copy(to_bytes(huge), bytes.begin() + 64);
  expect_refused(bytes, ErrorCode::bad_file, "does not fit into the file");
}

TEST(Snapshot, reserved_bytes_are_zero) {
  const Ram ram(1, {0});
  const auto good = encoded(image_of(ram), ram);
  auto header = good;
  header[45] = 1;
  std::ranges::copy(digest_of(Bytes(header).first(48)), header.begin() + 48);
  expect_refused(header, ErrorCode::bad_file, "the file header has reserved bytes");
  auto section = good;
  section[64 + 31] = 1;
  std::vector<u8> covered(section.begin() + 64, section.begin() + 64 + 48);
  covered.insert(covered.end(), kProducer.begin(), kProducer.end());
  std::ranges::copy(digest_of(covered), section.begin() + 64 + 48);
  expect_refused(section, ErrorCode::bad_file, "the header of section 'producer' has reserved bytes");
  auto commit = good;
  const auto record = commit.end() - 64;
  record[28] = 1;
  std::ranges::copy(digest_of({&*record, 48}), record + 48);
  expect_refused(commit, ErrorCode::bad_file, "the commit record has reserved bytes");
}

TEST(Snapshot, the_root_digest_binds_header_and_sections) {
  const Ram ram(1, {0});
  auto bytes = encoded(image_of(ram), ram);
  bytes[16] ^= 1;  // another UUID, with a right digest of the header alone
  std::ranges::copy(digest_of(Bytes(bytes).first(48)), bytes.begin() + 48);
  expect_refused(bytes, ErrorCode::bad_file, "do not match the root digest");
}

TEST(Snapshot, a_page_of_zeros_called_present_is_found) {
  const Ram ram(2, {0});
  Pieces pieces(encoded(image_of(ram), ram));
  std::ranges::fill(pieces.named("memory/ram").body, u8{0});
  RamIndex index{.pages = 2};
  const Digest content = digest_of(digest_of(std::vector<u8>(kPageSize)));
  index.chunks = {{.nonzero = 1, .present = 1, .content = content, .stored = content}};
  index.content = content_digest(2 * kPageSize, index, decoded(encoded(image_of(ram), ram))->listed);
  pieces.named("memory/ram/index").body = cbor::encode(to_value(index));
  const auto bytes = pieces.bytes();
  const auto back = decoded(bytes);
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_FALSE(verify_ram(*open_memory(bytes)));
}

TEST(Snapshot, what_a_file_says_of_its_content_is_checked) {
  const Ram ram(2, {0});
  Pieces pieces(encoded(image_of(ram), ram));
  auto& index = pieces.named("memory/ram/index");
  const Digest content = decoded(pieces.bytes())->ram.content;
  std::search(index.body.begin(), index.body.end(), content.begin(), content.end())[0] ^= 1;
  expect_refused(pieces.bytes(), ErrorCode::bad_file, "says that its content is ");
}

TEST(Snapshot, another_state_than_parts_says_is_found) {
  const Ram ram(2, {0});
  Pieces pieces(encoded(image_of(ram), ram));
  const PartRecord part = decoded(pieces.bytes())->image.parts[0];
  std::vector<u8>& body = pieces.named("parts").body;
  const Digest state = digest_of(cbor::encode(part.state));
  std::search(body.begin(), body.end(), state.begin(), state.end())[0] ^= 1;
  expect_refused(pieces.bytes(), ErrorCode::bad_file, "section '" + part.path + "': has another state than section 'parts' says");
}

TEST(Snapshot, a_nonzero_byte_in_a_zero_page_is_found) {
  const Ram ram(200, {0});
  auto bytes = encoded(image_of(ram), ram);
  const auto back = decoded(bytes);
  ASSERT_TRUE(back);
  bytes[back->ram_offset + 150 * kPageSize + 17] = 1;
  const auto checked = verify_ram(*open_memory(bytes));
  ASSERT_FALSE(checked);
  EXPECT_NE(checked.error().message.find("0x80000 to 0xbffff"), std::string::npos) << checked.error().text();
  EXPECT_FALSE(digest(*open_memory(bytes)));
}

TEST(Encoder, settles_everything_before_the_commit_record) {
  const Ram ram(9, {8});
  MemorySink sink;
  const auto report = encode(sink, image_of(ram), ram.source(), nullptr);
  ASSERT_TRUE(report);
  EXPECT_EQ(sink.announced, sink.bytes.size());
  EXPECT_EQ(sink.settled_at, sink.bytes.size() - kCommitSize);
  EXPECT_EQ(report->file_bytes, sink.bytes.size());
  EXPECT_EQ(report->pages_present, 1u);
  EXPECT_LT(report->stored_bytes, 2 * kPageSize + 3000);
}

TEST(Encoder, a_full_sink_ends_it) {
  const Ram ram(2000, {1, 2, 3, 500, 1999});
  const u64 whole = encoded(image_of(ram), ram).size();
  for (u64 room = 0; room < whole; room += room < 9000 ? 50 : 500'000) {
    MemorySink sink;
    sink.room = room;
    const auto report = encode(sink, image_of(ram), ram.source(), nullptr);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().message, "the disk is full");
  }
}

TEST(Encoder, tells_progress_and_can_be_cancelled) {
  std::vector<u64> all(8192);
  for (u64 page = 0; page < all.size(); ++page) all[page] = page;
  const Ram ram(8192, all);  // 32 MiB
  std::vector<u64> seen;
  u64 last_total = 0;
  SaveProgress progress{[&](u64 done, u64 total) { return seen.push_back(done), last_total = total, true; }};
  MemorySink sink;
  ASSERT_TRUE(encode(sink, image_of(ram), ram.source(), &progress));
  EXPECT_TRUE(std::ranges::is_sorted(seen));
  EXPECT_GE(seen.size(), 8u);
  EXPECT_EQ(seen.back(), last_total);
  unsigned steps = 0;
  SaveProgress cancel{[&](u64, u64) { return ++steps < 3; }};
  MemorySink cut;
  const auto report = encode(cut, image_of(ram), ram.source(), &cancel);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::cancelled);
  EXPECT_LT(cut.bytes.size(), 16 * kMiB);
}

TEST(Encoder, refuses_paths_that_cannot_be) {
  const Ram ram(1);
  for (const char* path : {"", "/a", "a/", "a//b", "producer", "memory/ram", "memory/x", "with space", "\xc3\xa9"}) {
    Image image = image_of(ram);
    image.parts[0].path = path;
    MemorySink sink;
    EXPECT_FALSE(encode(sink, image, ram.source(), nullptr)) << path;
  }
  Image twice = image_of(ram);
  twice.parts[0].path = twice.parts[1].path;
  MemorySink sink;
  EXPECT_FALSE(encode(sink, twice, ram.source(), nullptr));
}

TEST(Encoder, refuses_what_no_reader_would_take) {
  const Ram ram(1);
  Image image = image_of(ram);
  image.machine.state = cbor::ByteString(kMostOtherBytes);
  MemorySink sink;
  const auto report = encode(sink, image, ram.source(), nullptr);
  ASSERT_FALSE(report);
  EXPECT_NE(report.error().text().find("section 'machine' has"), std::string::npos) << report.error().text();
  EXPECT_TRUE(sink.bytes.empty());
}

TEST(Uuid, reads_as_version_4) {
  const std::string text = uuid_text(random_uuid());
  ASSERT_EQ(text.size(), 36u);
  EXPECT_EQ(text[14], '4');
  EXPECT_NE(std::string_view("89ab").find(text[19]), std::string_view::npos);
  EXPECT_NE(random_uuid(), random_uuid());
}

}  // namespace
}  // namespace stasis::snapshot
