// What a snapshot holds, in memory: who wrote it, the machine, every part's record, and where the RAM is.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "base/types.hpp"
#include "state/cbor.hpp"
#include "state/schema.hpp"

namespace stasis::snapshot {

using Uuid = std::array<u8, 16>;
Uuid random_uuid();                       // version 4
std::string uuid_text(const Uuid& uuid);  // "8-4-4-4-12" hexadecimal digits

// All of it is metadata: two saves with equal producers and equal machines are equal files.
struct Producer {
  std::string program = "stasis";
  std::string version;     // of the program
  std::string created_at;  // wall-clock time as the caller has it, "2025-01-31T12:00:00Z"
  Uuid uuid{};             // of this snapshot
  bool operator==(const Producer&) const = default;
};

// Something outside that the machine needs: a symbolic name, and a hint for people where it was.
struct HostResource {
  std::string name;  // "vda"
  std::string kind;  // "disk"
  std::string hint;  // "was /srv/a.img, 8 GiB"
  bool operator==(const HostResource&) const = default;
};

// The record of one part. path: its stable place, "cpu/0", "cpu/contract", "device/isa/uart0".
struct PartRecord {
  std::string path;
  state::Schema schema;  // kind and version are in it
  cbor::Value state;
  bool left_out = false;  // too long for who asked: it has neither fields nor state here (OpenOptions::bulk)
  bool operator==(const PartRecord&) const = default;
};

// What somebody wrote onto a snapshot, or what a tool did to it. Not state: two files that differ in notes only hold one machine.
struct Note {
  std::string at;    // wall-clock time, as Producer::created_at
  std::string by;    // program and version, or a person
  std::string text;  // one line
  bool operator==(const Note&) const = default;
};

// A section that this program does not know and may skip; it is carried along when a file is written anew.
struct ForeignSection {
  std::string name;
  u16 version = 1;
  std::vector<u8> body;
  bool operator==(const ForeignSection&) const = default;
};

struct Image {
  Producer producer;
  PartRecord machine;  // the configuration; its path is always "machine"
  std::vector<HostResource> host;
  std::vector<PartRecord> parts;  // in any order when saving; ascending by path when loaded
  u64 ram_size = 0;               // whole pages
  std::vector<Note> notes;
  std::vector<ForeignSection> foreign;
};

// Guest RAM that stands still. maybe_nonzero: one bit per page, 64 a word; a clear bit promises zeros unread.
struct RamSource {
  const u8* base;
  u64 size;
  const std::vector<u64>& maybe_nonzero;
};

// Asked every few MiB, on the saving thread. `done` ends at `total`.
struct SaveProgress {
  std::function<bool(u64 done, u64 total)> step;  // false: cancel
};

// One digest of all guest-visible state: RAM and the state of every part; 32 hexadecimal digits. It does not
// depend on how a file was made, nor on schemas, producer, UUID and time (docs/format.md, "Canonical digest").
std::string digest(const Image& image, const RamSource& ram);

}  // namespace stasis::snapshot
