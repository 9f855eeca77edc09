// The binary frame of a snapshot: header, section headers, commit record. Normative text: docs/format.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "snapshot/hash.hpp"
#include "snapshot/image.hpp"

namespace stasis::snapshot {

inline constexpr u16 kFormatMajor = 0, kFormatMinor = 1;

// The high bit and the line ends are there to be destroyed by transfers that are not binary.
inline constexpr std::array<u8, 12> kMagic{0x89, 'S', 'T', 'A', 'S', 'I', 'S', '\r', '\n', 0x1a, '\n', 0};
inline constexpr std::array<u8, 4> kSectionMagic{'S', 'E', 'C', 'T'};
inline constexpr std::array<u8, 8> kCommitMagic{'C', 'O', 'M', 'M', 'I', 'T', '\r', '\n'};

inline constexpr u64 kHeaderSize = 64, kSectionHeaderSize = 64, kCommitSize = 64;
inline constexpr u64 kLeastAlignment = 8, kMostAlignment = 2 * kMiB;
inline constexpr u64 kLongestName = 255;

// What a reader accepts before it allocates.
inline constexpr u64 kMostSections = 4096;
inline constexpr u64 kMostPartBytes = 512 * kMiB;    // kernel and initrd are in one
inline constexpr u64 kMostOtherBytes = 16 * kMiB;    // any other section, but for the index
inline constexpr u64 kMostMetadataBytes = kGiB;      // all sections before RAM together
inline constexpr u64 kMostItems = 1 << 20;           // CBOR items in one section
inline constexpr u64 kMostRam = 1024 * kGiB;

inline constexpr u64 kChunkPages = 64;
inline constexpr u64 kChunkRecord = 32;  // bytes in the index: two planes of states, one digest

// State of a page: bit 0 from the first plane, bit 1 from the second.
enum class PageState : u8 { zero, present, same_as, in_parent };  // the last two: reserved in format 0.1

// Names with a meaning of their own; no part may have one.
inline constexpr std::string_view kProducer = "producer", kMachine = "machine", kParts = "parts", kHost = "host",
                                  kRam = "memory/ram", kRamIndex = "memory/ram/index";

struct FileHeader {
  u16 major = kFormatMajor, minor = kFormatMinor;
  Uuid uuid{};
  u64 length = 0;  // of the whole file; 0: not known when the header was written
  u32 flags = 0;   // none defined
};

enum SectionFlags : u32 {
  kCritical = 1,  // a reader that does not know the section refuses the file
  kRegion = 2,    // pages, covered by the section NAME/index; the digest here is zero
  kKnownFlags = kCritical | kRegion,
};

struct SectionHeader {
  std::string name;
  u16 version = 1;
  u32 flags = kCritical;
  u32 alignment = kLeastAlignment;  // of the body's offset in the file
  u64 length = 0;                   // of the body
  Digest digest{};                  // of the body

  u64 header_bytes() const { return kSectionHeaderSize + align_up(name.size(), 8); }
  u64 body_offset(u64 at) const { return align_up(at + header_bytes(), alignment); }
  u64 end(u64 at) const { return align_up(body_offset(at) + length, 8); }
};

struct CommitRecord {
  u64 length = 0;        // of the whole file
  u64 index_offset = 0;  // of the section header of memory/ram/index
  u32 sections = 0;
  Digest root{};
};

std::array<u8, kHeaderSize> to_bytes(const FileHeader& header);
std::vector<u8> to_bytes(const SectionHeader& header);  // with the name and its padding
std::array<u8, kCommitSize> to_bytes(const CommitRecord& record);

// Each refuses what is damaged, in one sentence; versions and meanings are the caller's matter.
Result<FileHeader> header_from(Bytes bytes, const std::string& object);  // as many bytes as there are, at most 64
Result<SectionHeader> section_header_from(Bytes fixed, const std::string& object);  // without the name
Result<> check_section_name(SectionHeader& header, Bytes fixed, Bytes padded_name, const std::string& object);
Result<CommitRecord> commit_from(Bytes bytes, const std::string& object);

// Section names and part paths: 1 to 255 of a-z A-Z 0-9 . _ : / -, no empty step between slashes.
bool is_section_name(std::string_view name);
bool is_reserved_name(std::string_view name);

}  // namespace stasis::snapshot
