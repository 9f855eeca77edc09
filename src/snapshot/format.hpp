// The binary frame of a snapshot: header, section headers, commit record. Normative text: docs/format.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "snapshot/hash.hpp"
#include "snapshot/image.hpp"

namespace stasis::snapshot {

inline constexpr u16 kFormatMajor = 1, kFormatMinor = 0;
// Format 0.1 is 1.0 without everything but mapped, whole, clear files; its content digest was another one.
constexpr bool is_known_major(u16 major) { return major <= kFormatMajor; }

// The high bit and the line ends are there to be destroyed by transfers that are not binary.
inline constexpr std::array<u8, 12> kMagic{0x89, 'S', 'T', 'A', 'S', 'I', 'S', '\r', '\n', 0x1a, '\n', 0};
inline constexpr std::array<u8, 4> kSectionMagic{'S', 'E', 'C', 'T'};
inline constexpr std::array<u8, 8> kCommitMagic{'C', 'O', 'M', 'M', 'I', 'T', '\r', '\n'};

inline constexpr std::array<u8, 4> kBlockMagic{'B', 'L', 'C', 'K'};

inline constexpr u64 kHeaderSize = 64, kSectionHeaderSize = 64, kCommitSize = 64, kBlockHeaderSize = 32;
inline constexpr u64 kLeastAlignment = 8, kMostAlignment = 2 * kMiB;
inline constexpr u64 kLongestName = 255;

// What a reader accepts before it allocates.
inline constexpr u64 kMostSections = 4096;
inline constexpr u64 kMostPartBytes = 512 * kMiB;    // kernel and initrd are in one
inline constexpr u64 kMostOtherBytes = 16 * kMiB;    // any other section, but for the index
inline constexpr u64 kMostMetadataBytes = kGiB;      // all sections before RAM together
inline constexpr u64 kMostItems = 1 << 20;           // CBOR items in one section
inline constexpr u64 kMostRam = 1024 * kGiB;

inline constexpr u64 kMostText = 4096;               // bytes of a text in a body that is no state
inline constexpr u64 kMostAncestors = 1000;          // of a chain of incremental snapshots

inline constexpr u64 kChunkPages = 64, kChunkBytes = kChunkPages * kPageSize;

// Names with a meaning of their own; no part may have one.
inline constexpr std::string_view kProducer = "producer", kMachine = "machine", kParts = "parts", kHost = "host",
                                  kEncryption = "encryption", kParent = "parent", kNotes = "notes", kSeal = "seal",
                                  kRam = "memory/ram", kRamIndex = "memory/ram/index";

struct FileHeader {
  u16 major = kFormatMajor, minor = kFormatMinor;
  Uuid uuid{};
  u64 length = 0;  // of the whole file; 0: not known when the header was written
  u32 flags = 0;   // HeaderFlags
};

enum HeaderFlags : u32 {
  kEncrypted = 1,  // bodies are, but for those of producer, encryption and seal
  kKnownHeaderFlags = kEncrypted,
};

enum SectionFlags : u32 {
  kCritical = 1,  // a reader that does not know the section refuses the file
  kRegion = 2,    // pages, covered by the section NAME/index; the digest here is zero
  kBlocks = 4,    // a region made of blocks; its length is kUnknownLength, its end the block of that kind
  kKnownFlags = kCritical | kRegion | kBlocks,
};
inline constexpr u64 kMostCipherBytes = 16;  // that encryption adds to a body or a chunk
inline constexpr u64 kUnknownLength = ~0ull;

struct SectionHeader {
  std::string name;
  u16 version = 1;
  u32 flags = kCritical;
  u32 alignment = kLeastAlignment;  // of the body's offset in the file
  u64 length = 0;                   // of the body
  Digest digest{};                  // of the body

  u64 header_bytes() const { return kSectionHeaderSize + align_up(name.size(), 8); }
  u64 body_offset(u64 at) const { return align_up(at + header_bytes(), alignment); }
  u64 end(u64 at) const { return align_up(body_offset(at) + length, 8); }  // not for blocks
};

struct CommitRecord {
  u64 length = 0;        // of the whole file
  u64 index_offset = 0;  // of the section header of memory/ram/index
  u32 sections = 0;
  Digest root{};
};

// The body of section `parent`: the snapshot that an incremental one builds on.
struct ParentLink {
  Digest content{};  // content digest: names it wherever it is and however it is encoded
  Uuid uuid{};       // of the file that was there when this one was made
  std::string file;  // its name then, without folders: a hint
};

// The body of section `encryption`.
inline constexpr std::string_view kCipherName = "xchacha20-poly1305";
struct EncryptionInfo {
  std::array<u8, 16> salt{};
  Digest check{};
};

// Before the stored bytes of each chunk of a packed region.
struct BlockHeader {
  static constexpr u64 kEnd = ~0ull;
  u64 chunk = kEnd;
  u32 stored = 0;     // bytes that follow, without their padding to a multiple of 8; 0 in the block that ends a region
  Digest digest{};    // of the first 16 bytes of the header and the stored bytes
};

std::array<u8, kHeaderSize> to_bytes(const FileHeader& header);
std::vector<u8> to_bytes(const SectionHeader& header);  // with the name and its padding
std::array<u8, kCommitSize> to_bytes(const CommitRecord& record);
std::array<u8, kBlockHeaderSize> to_bytes(const BlockHeader& block);
Digest block_digest(const BlockHeader& block, Bytes stored);

// Each refuses what is damaged, in one sentence; versions and meanings are the caller's matter.
Result<FileHeader> header_from(Bytes bytes, const std::string& object);  // as many bytes as there are, at most 64
Result<SectionHeader> section_header_from(Bytes fixed, const std::string& object);  // without the name
Result<> check_section_name(SectionHeader& header, Bytes fixed, Bytes padded_name, const std::string& object);
Result<CommitRecord> commit_from(Bytes bytes, const std::string& object);
bool is_commit(Bytes bytes);  // whether a commit record begins here
// Refuses a chunk that is not below `chunks` and more stored bytes than a chunk can have. The digest is the caller's to check.
Result<BlockHeader> block_from(Bytes bytes, u64 chunks, const std::string& object);

// Section names and part paths: 1 to 255 of a-z A-Z 0-9 . _ : / -, no empty step between slashes.
bool is_section_name(std::string_view name);
bool is_reserved_name(std::string_view name);

}  // namespace stasis::snapshot
