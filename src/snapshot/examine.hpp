// Reading a snapshot that may be damaged: as far as it goes, with all that is wrong and not the first thing only.
#pragma once

#include "snapshot/reader.hpp"

namespace stasis::snapshot {

struct Examination {
  Decoded decoded;              // what could be read
  std::vector<Error> problems;
  bool locked = false;          // encrypted, and no key was given: stored digests were checked, not what is behind them
  bool blocks = false;          // the RAM is made of blocks
  bool index_read = false;      // decoded.ram is whole
  bool parts_read = false;      // decoded.image is whole
};
Examination examine(const Source& source, const std::string& object, const OpenOptions& options = {});

struct ExaminedFile : Examination {
  OpenSnapshot snapshot;  // takes the place of `decoded`; with its parents, where they could be opened
};
Result<ExaminedFile> examine(const std::string& path, const OpenOptions& options = {});

}  // namespace stasis::snapshot
