// Writing a note onto a snapshot: the file is replaced as a whole by one that differs in its notes only.
#pragma once

#include "snapshot/reader.hpp"

namespace stasis::snapshot {

// The content digest, the UUID and the producer stay, so children find their parent. Of a clear file every other byte of
// every body stays too; an encrypted one is encrypted anew under `key` (nothing may be encrypted twice with one salt), packed
// at `level`. Errors as of save().
Result<> annotate(const OpenSnapshot& snapshot, const Note& note, const std::optional<Key>& key, int level, SaveProgress* progress = nullptr);

}  // namespace stasis::snapshot
