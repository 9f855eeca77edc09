// The one encoder: an image and its RAM become a stream of bytes.
#pragma once

#include "snapshot/sink.hpp"
#include "snapshot/writer.hpp"

namespace stasis::snapshot {

// Everything but the commit record is settled in the sink before that record is written.
Result<SaveReport> encode(Sink& sink, const Image& image, const RamSource& ram, SaveProgress* progress, const SaveOptions& options = {});

}  // namespace stasis::snapshot
