// Opening a snapshot: everything but the RAM is read and checked; the RAM is only located.
#pragma once

#include <memory>
#include <optional>

#include "base/error.hpp"
#include "base/file_descriptor.hpp"
#include "snapshot/bodies.hpp"
#include "snapshot/cipher.hpp"
#include "snapshot/image.hpp"
#include "snapshot/ram_index.hpp"

namespace stasis::snapshot {

// Random access to the bytes of a snapshot.
class Source {
 public:
  virtual ~Source() = default;
  virtual u64 size() const = 0;
  virtual Result<> read(u64 offset, MutableBytes out) const = 0;
  // The first offset at or after `offset` that is not in a hole; `offset` itself where holes are not known.
  virtual u64 next_data(u64 offset) const { return offset; }
  // Bytes arrive in order and size() is not known yet: nothing is read before what comes earlier in the file.
  virtual bool arriving() const { return false; }
};

struct SectionInfo {
  std::string name;
  u16 version = 0;
  bool critical = false;
  bool known = false;  // false: skipped
  u64 offset = 0;      // of the body
  u64 length = 0;      // of the body
  std::string digest;  // of the body; empty for RAM, which its index covers
};

struct OpenOptions {
  std::optional<Key> key;            // of an encrypted snapshot, and of its ancestors
  std::vector<std::string> parents;  // files, or folders of files, where parents are looked for before the child's own folder
  bool ancestors = true;             // false: an incremental snapshot is opened without its parents; its RAM cannot be read
  bool bulk = true;                  // false: records longer than 1 MiB (a kernel) are neither read nor checked
};

// A checked snapshot without a file behind it.
struct Decoded {
  Image image;
  u16 format_major = 0, format_minor = 0;
  std::string root;         // root digest: names this very file
  u64 file_bytes = 0;
  bool encrypted = false;
  std::optional<Cipher> cipher;           // of an encrypted one
  std::optional<ParentLink> parent_link;  // of an incremental one
  std::vector<ListedPart> listed;         // what section `parts` says; ascending by path
  u64 ram_offset = 0;       // of the RAM region in the file; mapped: page-aligned. The size of RAM is image.ram_size
  u64 ram_end = 0;          // of the region
  RamIndex ram;
  std::vector<u64> nonzero; // one bit per page of RAM: not zero, wherever it is held
  std::vector<u8> chunk_digests;  // 16 bytes for each 64 pages: the content of RAM, wherever it is held
  std::vector<SectionInfo> sections;  // in file order
};

// `object` names the source in errors. Never trusts a byte; caps what it allocates. Reads no RAM.
Result<Decoded> decode(const Source& source, const std::string& object, const OpenOptions& options = {});

// What the content digest is by an index and by section `parts`, ascending by path.
Digest content_digest(u64 ram_size, const RamIndex& ram, const std::vector<ListedPart>& parts);

struct OpenSnapshot : Decoded {
  std::string path;
  FileDescriptor file;  // mapped and without parent: for GuestMemory::map_file(file.get(), ram_offset, image.ram_size, nonzero)
  std::shared_ptr<const Source> source;
  std::shared_ptr<const OpenSnapshot> parent;  // of an incremental one, unless OpenOptions::ancestors was false
  bool streamed = false;                       // `path` names no place; `file` is nobody else's
};
Result<OpenSnapshot> open(const std::string& path, const OpenOptions& options = {});
// From a pipe or socket, without a seek; what arrives is kept in memory. Refused as soon as it is known to be no good.
Result<OpenSnapshot> open_stream(int fd, const std::string& name, const OpenOptions& options = {});

// Fetches the records that an incremental snapshot leaves to its parent, which must be open. open() does it.
Result<> join_parts(OpenSnapshot& child);

// Records that were left out (OpenOptions::bulk), here or in the ancestor that holds them: that their stored bytes match
// their digests. Costs a tenth of reading them. What is in a parent that is not open is passed over.
Result<> check_left_out(const OpenSnapshot& snapshot);

// The snapshot that stands alone at the end of the chain of parents: `snapshot` itself, when it is not incremental.
const OpenSnapshot& root_of(const OpenSnapshot& snapshot);

// Whether a path names the file of this snapshot or of one of its ancestors.
bool is_file_of(const OpenSnapshot& snapshot, const std::string& path);

// RAM of a snapshot into memory, by as many threads as help. `over_root`: the memory holds root_of(snapshot)'s RAM
// already; else it is all zeros. `ram` has image.ram_size bytes. What is packed is checked on the way.
Result<> load_ram(const OpenSnapshot& snapshot, u8* ram, bool over_root, SaveProgress* progress = nullptr);

// Reads all RAM, of parents too, and checks it against its digests; names the damaged pages.
Result<> verify_ram(const OpenSnapshot& snapshot, SaveProgress* progress = nullptr);
// The same, with all damage of each file and not the first only; an error only when cancelled.
Result<std::vector<Error>> ram_problems(const OpenSnapshot& snapshot, SaveProgress* progress = nullptr);
// The content digest, as digest() of the live machine gives it. Verifies the RAM on the way.
Result<std::string> digest(const OpenSnapshot& snapshot, SaveProgress* progress = nullptr);

// What any Stasis can say of any snapshot, older or newer, complete or not.
struct Identity {
  u16 format_major = 0, format_minor = 0;
  Producer producer;
  bool complete = false;  // has its commit record and its whole length
  bool encrypted = false;
};
Result<Identity> identify(const Source& source, const std::string& object);
Result<Identity> identify(const std::string& path);

// How a child names this parent.
ParentLink link_to(const OpenSnapshot& parent);

}  // namespace stasis::snapshot
