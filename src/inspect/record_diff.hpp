// Two snapshots compared by field: which records and which fields differ, in words of their schemas.
#pragma once

#include <string>
#include <vector>

#include "snapshot/image.hpp"

namespace stasis::inspect {

struct FieldChange {
  std::string path;  // "cpu/0/gpr/3"
  std::string a, b;  // as people read them; empty: not there
  std::string note;  // "+12 ns", or empty
  std::string help;  // by the schema, or empty
  const cbor::Value* value_a = nullptr;  // of the images that were compared; null: not there
  const cbor::Value* value_b = nullptr;
};

struct RecordDiff {
  std::vector<std::string> only_in_a, only_in_b;  // paths of records
  std::vector<FieldChange> fields;                // by record, in the schema's order
  u64 left_out = 0;                               // changes beyond kMostChanges
  bool equal() const { return only_in_a.empty() && only_in_b.empty() && fields.empty() && left_out == 0; }
};
inline constexpr std::size_t kMostChanges = 100'000;

// Machine configurations, kinds and versions too; not who wrote the files and when. The images must outlive the result.
RecordDiff diff_records(const snapshot::Image& a, const snapshot::Image& b);

}  // namespace stasis::inspect
