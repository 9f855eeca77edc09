// Header, section headers and commit record as bytes, and what is said of damaged ones.
#include "snapshot/format.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace stasis::snapshot {
namespace {

void put(u8* at, u64 value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; ++i) at[i] = static_cast<u8>(value >> (8 * i));
}

u64 get(Bytes bytes, u64 at, unsigned size) {
  u64 value = 0;
  for (unsigned i = size; i-- > 0;) value = value << 8 | bytes[at + i];
  return value;
}

template <class To>
void copy_to(u8* at, const To& bytes) {
  std::copy(bytes.begin(), bytes.end(), at);
}

Digest digest_at(Bytes bytes, u64 at) {
  Digest out;
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), out.size(), out.begin());
  return out;
}

template <std::size_t N>
bool starts_with(Bytes bytes, const std::array<u8, N>& magic) {
  return bytes.size() >= N && std::equal(magic.begin(), magic.end(), bytes.begin());
}

constexpr char kNotOurs[] = "the file was not written by a Stasis of this format version";
constexpr char kDamaged[] = "the file is damaged: take another copy of it";

std::unexpected<Error> not_ours(Bytes bytes, const std::string& object) {
  if (bytes.empty()) return fail(ErrorCode::bad_file, object, "is empty, not a Stasis snapshot", "check the path, or copy the file again");
  constexpr std::string_view kName = "STASIS";
  const bool named = bytes.size() >= 7 && std::memcmp(bytes.data() + 1, kName.data(), kName.size()) == 0;
  if (named && ((bytes[0] & 0x7f) == (kMagic[0] & 0x7f)))
    return fail(ErrorCode::bad_file, object,
                fmt::format("was changed on its way: its first bytes are {:02x}, wanted are {:02x}",
                            fmt::join(bytes.first(std::min<std::size_t>(bytes.size(), kMagic.size())), " "), fmt::join(kMagic, " ")),
                "the copy converted line ends or stripped bits; copy it again in binary mode");
  return fail(ErrorCode::bad_file, object,
              fmt::format("is not a Stasis snapshot: its first bytes are {:02x}, wanted are {:02x}",
                          fmt::join(bytes.first(std::min<std::size_t>(bytes.size(), kMagic.size())), " "), fmt::join(kMagic, " ")),
              "check the path");
}

Digest section_digest(Bytes fixed, std::string_view name) {
  Hasher hasher;
  hasher.add(fixed.first(48));
  hasher.add({reinterpret_cast<const u8*>(name.data()), name.size()});
  return hasher.result();
}

}  // namespace

std::array<u8, kHeaderSize> to_bytes(const FileHeader& header) {
  std::array<u8, kHeaderSize> out{};
  copy_to(out.data(), kMagic);
  put(&out[12], header.major, 2);
  put(&out[14], header.minor, 2);
  copy_to(&out[16], header.uuid);
  put(&out[32], header.length, 8);
  put(&out[40], header.flags, 4);
  copy_to(&out[48], digest_of(Bytes(out).first(48)));
  return out;
}

std::vector<u8> to_bytes(const SectionHeader& header) {
  std::vector<u8> out(header.header_bytes());
  copy_to(out.data(), kSectionMagic);
  put(&out[4], header.name.size(), 2);
  put(&out[6], header.version, 2);
  put(&out[8], header.flags, 4);
  put(&out[12], header.alignment, 4);
  put(&out[16], header.length, 8);
  copy_to(&out[32], header.digest);
  copy_to(&out[48], section_digest(out, header.name));
  copy_to(&out[64], header.name);
  return out;
}

std::array<u8, kCommitSize> to_bytes(const CommitRecord& record) {
  std::array<u8, kCommitSize> out{};
  copy_to(out.data(), kCommitMagic);
  put(&out[8], record.length, 8);
  put(&out[16], record.index_offset, 8);
  put(&out[24], record.sections, 4);
  copy_to(&out[32], record.root);
  copy_to(&out[48], digest_of(Bytes(out).first(48)));
  return out;
}

std::array<u8, kBlockHeaderSize> to_bytes(const BlockHeader& block) {
  std::array<u8, kBlockHeaderSize> out{};
  copy_to(out.data(), kBlockMagic);
  put(&out[4], block.stored, 4);
  put(&out[8], block.chunk, 8);
  copy_to(&out[16], block.digest);
  return out;
}

Digest block_digest(const BlockHeader& block, Bytes stored) {
  Hasher hasher;
  const auto bytes = to_bytes(block);
  hasher.add(Bytes(bytes).first(16));
  hasher.add(stored);
  return hasher.result();
}

Result<FileHeader> header_from(Bytes bytes, const std::string& object) {
  if (!starts_with(bytes, kMagic)) return not_ours(bytes, object);
  if (bytes.size() < kHeaderSize)
    return fail(ErrorCode::bad_file, object, fmt::format("the file is incomplete: it ends inside its header, after {} bytes", bytes.size()),
                "take another copy of it");
  if (digest_at(bytes, 48) != digest_of(bytes.first(48)))
    return fail(ErrorCode::bad_file, object, "the file header (bytes 0 to 63) does not match its digest", kDamaged);
  if (get(bytes, 44, 4)) return fail(ErrorCode::bad_file, object, "the file header has reserved bytes that are not zero", kNotOurs);
  FileHeader out{.major = static_cast<u16>(get(bytes, 12, 2)), .minor = static_cast<u16>(get(bytes, 14, 2)), .uuid = {},
                 .length = get(bytes, 32, 8), .flags = static_cast<u32>(get(bytes, 40, 4))};
  std::copy_n(bytes.begin() + 16, 16, out.uuid.begin());
  return out;
}

Result<SectionHeader> section_header_from(Bytes fixed, const std::string& object) {
  if (!starts_with(fixed, kSectionMagic)) return fail(ErrorCode::bad_file, object, "no section begins here", kDamaged);
  SectionHeader out{.name = std::string(get(fixed, 4, 2), '?'), .version = static_cast<u16>(get(fixed, 6, 2)),
                    .flags = static_cast<u32>(get(fixed, 8, 4)), .alignment = static_cast<u32>(get(fixed, 12, 4)),
                    .length = get(fixed, 16, 8), .digest = digest_at(fixed, 32)};
  if (out.name.empty() || out.name.size() > kLongestName)
    return fail(ErrorCode::bad_file, object, fmt::format("a section name has {} bytes, allowed are 1 to {}", out.name.size(), kLongestName), kDamaged);
  return out;
}

Result<> check_section_name(SectionHeader& header, Bytes fixed, Bytes padded_name, const std::string& object) {
  header.name.assign(reinterpret_cast<const char*>(padded_name.data()), header.name.size());
  if (digest_at(fixed, 48) != section_digest(fixed, header.name))
    return fail(ErrorCode::bad_file, object, "the section header does not match its digest", kDamaged);
  if (!is_section_name(header.name)) return fail(ErrorCode::bad_file, object, "the section's name has characters that are not allowed", kDamaged);
  if (!std::ranges::all_of(padded_name.subspan(header.name.size()), [](u8 byte) { return byte == 0; }))
    return fail(ErrorCode::bad_file, object, fmt::format("the padding after the name of section '{}' is not zero", header.name), kDamaged);
  if (get(fixed, 24, 8))
    return fail(ErrorCode::bad_file, object, fmt::format("the header of section '{}' has reserved bytes that are not zero", header.name), kNotOurs);
  const u64 alignment = header.alignment;
  if (alignment < kLeastAlignment || alignment > kMostAlignment || (alignment & (alignment - 1)))
    return fail(ErrorCode::bad_file, object,
                fmt::format("section '{}' has alignment {}, allowed are powers of two from {} to {}", header.name, alignment,
                            kLeastAlignment, kMostAlignment),
                kDamaged);
  return {};
}

Result<CommitRecord> commit_from(Bytes bytes, const std::string& object) {
  if (!starts_with(bytes, kCommitMagic))
    return fail(ErrorCode::bad_file, object, "the file is incomplete: it has no commit record at its end",
                "its writer was interrupted, or the copy is damaged; use another snapshot or copy");
  if (digest_at(bytes, 48) != digest_of(bytes.first(48)))
    return fail(ErrorCode::bad_file, object, "the commit record (the last 64 bytes) does not match its digest", kDamaged);
  if (get(bytes, 28, 4)) return fail(ErrorCode::bad_file, object, "the commit record has reserved bytes that are not zero", kNotOurs);
  return CommitRecord{.length = get(bytes, 8, 8), .index_offset = get(bytes, 16, 8),
                      .sections = static_cast<u32>(get(bytes, 24, 4)), .root = digest_at(bytes, 32)};
}

bool is_commit(Bytes bytes) { return starts_with(bytes, kCommitMagic); }

Result<BlockHeader> block_from(Bytes bytes, u64 chunks, const std::string& object) {
  if (!starts_with(bytes, kBlockMagic)) return fail(ErrorCode::bad_file, object, "no block begins here", kDamaged);
  const BlockHeader out{.chunk = get(bytes, 8, 8), .stored = static_cast<u32>(get(bytes, 4, 4)), .digest = digest_at(bytes, 16)};
  if (out.chunk == BlockHeader::kEnd && out.stored == 0) return out;
  if (out.chunk >= chunks || out.stored == 0 || out.stored > kChunkBytes + kMostCipherBytes)
    return fail(ErrorCode::bad_file, object,
                fmt::format("a block has chunk {} and {} bytes, allowed are chunks below {} and 1 to {} bytes", out.chunk, out.stored, chunks,
                            kChunkBytes + kMostCipherBytes),
                kDamaged);
  return out;
}

bool is_section_name(std::string_view name) {
  if (name.empty() || name.size() > kLongestName || name.front() == '/' || name.back() == '/') return false;
  if (name.find("//") != name.npos) return false;
  return std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == ':' ||
           c == '/' || c == '-';
  });
}

bool is_reserved_name(std::string_view name) {
  return name == kProducer || name == kMachine || name == kParts || name == kHost || name == kEncryption || name == kParent ||
         name == kNotes || name == kSeal || name == "memory" || name == "disk" || name.starts_with("memory/") || name.starts_with("disk/");
}

}  // namespace stasis::snapshot
