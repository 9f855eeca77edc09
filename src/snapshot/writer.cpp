// Saving to a file: the encoder into a publication.
#include "snapshot/writer.hpp"

#include "snapshot/encoder.hpp"
#include "snapshot/file_sink.hpp"
#include "snapshot/publication.hpp"

namespace stasis::snapshot {

Result<SaveReport> save(const std::string& path, const Image& image, const RamSource& ram, SaveProgress* progress) {
  STASIS_TRY_SET(Publication publication, Publication::begin(path));
  FileSink sink(publication.fd(), path);
  STASIS_TRY_SET(SaveReport report, encode(sink, image, ram, progress));
  STASIS_TRY(publication.publish());
  return report;
}

}  // namespace stasis::snapshot
