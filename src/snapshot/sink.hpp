// Where the encoder puts a snapshot: bytes in order, never a step back, so that a pipe will do.
#pragma once

#include "base/error.hpp"
#include "base/types.hpp"

namespace stasis::snapshot {

class Sink {
 public:
  virtual ~Sink() = default;
  // Before the first byte: the exact length, and how much of it may be other than holes.
  virtual Result<> announce(u64 length, u64 most_stored) { return (void)length, (void)most_stored, Result<>{}; }
  virtual Result<> write(Bytes bytes) = 0;
  virtual Result<> skip_hole(u64 bytes) = 0;  // that many zero bytes
  virtual Result<> flush() { return {}; }     // returns when nothing is held back that was written
  virtual Result<> settle() { return flush(); }  // returns when all so far is where power loss cannot reach it
};

}  // namespace stasis::snapshot
