// Bytes as people read them: address, sixteen bytes, their characters; equal lines once.
#pragma once

#include <string>
#include <vector>

#include "base/types.hpp"

namespace stasis::cli {

class HexDump {
 public:
  // Pieces in order; all but the last are a multiple of 16 bytes.
  std::string lines(u64 address, Bytes bytes);
  std::string end() const;  // after the last: where it ended, if equal lines were left out up to there

 private:
  std::vector<u8> last_;
  u64 next_ = 0;
  bool starred_ = false;
};

}  // namespace stasis::cli
