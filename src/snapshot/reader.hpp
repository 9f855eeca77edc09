// Opening a snapshot: everything but the RAM is read and checked; the RAM is only located.
#pragma once

#include "base/error.hpp"
#include "base/file_descriptor.hpp"
#include "snapshot/image.hpp"

namespace stasis::snapshot {

// Random access to the bytes of a snapshot.
class Source {
 public:
  virtual ~Source() = default;
  virtual u64 size() const = 0;
  virtual Result<> read(u64 offset, MutableBytes out) const = 0;
  // The first offset at or after `offset` that is not in a hole; `offset` itself where holes are not known.
  virtual u64 next_data(u64 offset) const { return offset; }
};

struct SectionInfo {
  std::string name;
  u16 version = 0;
  bool critical = false;
  bool known = false;  // false: skipped
  u64 offset = 0;      // of the body
  u64 length = 0;
  std::string digest;  // of the body; empty for RAM, which its index covers
};

// A checked snapshot without a file behind it.
struct Decoded {
  Image image;
  u16 format_major = 0, format_minor = 0;
  std::string root;         // root digest: names the whole content
  u64 file_bytes = 0;
  u64 ram_offset = 0;       // of RAM in the file, page-aligned; the size is image.ram_size
  std::vector<u64> nonzero; // one bit per page: present in the file
  std::vector<u8> chunk_digests;  // 16 bytes for each 64 pages
  std::vector<SectionInfo> sections;  // in file order
};

// `object` names the source in errors. Never trusts a byte; caps what it allocates. Reads no RAM.
Result<Decoded> decode(const Source& source, const std::string& object);

struct OpenSnapshot : Decoded {
  std::string path;
  FileDescriptor file;  // for GuestMemory::map_file(file.get(), ram_offset, image.ram_size, nonzero)
};
Result<OpenSnapshot> open(const std::string& path);

// Reads all RAM and checks it against its digests; names the damaged pages.
Result<> verify_ram(const OpenSnapshot& snapshot, SaveProgress* progress = nullptr);
Result<> verify_ram(const Source& source, const Decoded& decoded, const std::string& object, SaveProgress* progress = nullptr);
// The canonical digest, as digest() of the live machine gives it. Verifies the RAM on the way.
Result<std::string> digest(const OpenSnapshot& snapshot);
Result<std::string> digest(const Source& source, const Decoded& decoded, const std::string& object);

// What any Stasis can say of any snapshot, older or newer, complete or not.
struct Identity {
  u16 format_major = 0, format_minor = 0;
  Producer producer;
  bool complete = false;  // has its commit record and its whole length
};
Result<Identity> identify(const Source& source, const std::string& object);
Result<Identity> identify(const std::string& path);

}  // namespace stasis::snapshot
