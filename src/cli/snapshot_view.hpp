// A snapshot as people and scripts read it: the whole, or one record or field.
#pragma once

#include <memory>
#include <string>

#include "snapshot/reader.hpp"

namespace stasis::cli {

std::string show_whole(const snapshot::OpenSnapshot& snapshot);
std::string show_whole_json(const snapshot::OpenSnapshot& snapshot);
// All records with their schemas, every byte of them.
std::string state_json(const snapshot::OpenSnapshot& snapshot);
std::string show_identity(const std::string& path, const snapshot::Identity& identity);
std::string show_identity_json(const std::string& path, const snapshot::Identity& identity);

// One record ("cpu/0"), one field of it ("cpu/0/rip", "device/isa/uart0/lcr"), one element ("cpu/0/gpr/3",
// "cpu/0/fpu/xmm/1/15"), or, for the beginning of paths, all records below ("device/isa"). A section that is no record
// ("memory/ram"): where it is. Not there: `not_found`, with what is.
Result<std::string> show_path(const snapshot::OpenSnapshot& snapshot, const std::string& path);
Result<std::string> show_path_json(const snapshot::OpenSnapshot& snapshot, const std::string& path);

// What a path names; for the two above.
struct Selection {
  std::vector<const snapshot::PartRecord*> records;  // one, or all below
  const cbor::Value* value = nullptr;                // inside the one record
  const state::FieldSchema* schema = nullptr;        // of that value; null: the record itself
  std::shared_ptr<const cbor::Value> element;        // of a byte string: what `value` points to
  const snapshot::SectionInfo* section = nullptr;    // a section without a record; nothing else is set
};
Result<Selection> select(const snapshot::OpenSnapshot& snapshot, const std::string& path);

struct PageCounts {
  u64 present = 0, same_as = 0, in_parent = 0;  // as the index has it; the others are zero
};
PageCounts page_counts(const snapshot::Decoded& snapshot);
u64 bytes_on_disk(const snapshot::OpenSnapshot& snapshot);  // without holes

// Whether what a path names was left out when the file was opened (OpenOptions::bulk).
bool lacks(const snapshot::OpenSnapshot& snapshot, const std::string& path);

}  // namespace stasis::cli
