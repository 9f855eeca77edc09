// Layouts as text for tests/golden/schema.lock, and the gate: what a change of a layout does to files that exist.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "state/schema.hpp"

namespace stasis::state {

// One line a field: "acpi.pm v1 status u16 mask=0x121 …". Texts for people (help, hex) are not in it.
std::string lock_text(const Schema& schema);

enum class Change {
  same,
  safe,         // files from before load, and newer ones are refused by name where they must be
  needs_since,  // a change that is possible, but has to be declared with a new version
  breaks,       // files that exist would be lost or misread
};

struct Verdict {
  std::string kind;
  Change change = Change::same;
  std::vector<std::string> reasons;  // "field 'x' was removed": one for each change
  std::string line() const;          // "acpi.pm: breaks: field 'x' was removed"
};

// One for each kind that differs between two texts of lock_text(), by kind; kinds that stayed as they were are left out.
// A layout with a new shape (`Previous`) is safe here: that its upgrade is right, golden records prove.
std::vector<Verdict> judge(std::string_view before, std::string_view after);

}  // namespace stasis::state
