// A snapshot written anew: in another encoding, against another parent, or with another image. Its RAM stays the same, and
// damage in it is refused before the commit record, so that no new digest ever vouches for it.
#pragma once

#include "snapshot/reader.hpp"
#include "snapshot/writer.hpp"

namespace stasis::snapshot {

// Where to: a file, which is replaced as a whole, or a descriptor.
struct Destination {
  std::string name;  // path, or what the descriptor is called
  int fd = -1;       // -1: the file `name`
};

// `from`: opened with its parents and with bulk; it may be the file that is replaced. `image`: what is written beside the RAM.
// Refused: sections of `from` that are not known here and too long to carry along; a destination that is an ancestor of
// what is written.
Result<SaveReport> rewrite(const OpenSnapshot& from, const Image& image, const Destination& to, SaveOptions options,
                           SaveProgress* progress = nullptr);

}  // namespace stasis::snapshot
