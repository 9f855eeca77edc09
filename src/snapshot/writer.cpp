// Saving: the encoder into a publication, or into a stream.
#include "snapshot/writer.hpp"

#include "base/file_descriptor.hpp"
#include "snapshot/encoder.hpp"
#include "snapshot/file_sink.hpp"
#include "snapshot/publication.hpp"

namespace stasis::snapshot {
namespace {

class StreamSink : public Sink {
 public:
  StreamSink(int fd, const std::string& name) : fd_(fd), name_(name) {}
  Result<> write(Bytes bytes) override { return write_all(fd_, bytes, name_); }
  Result<> skip_hole(u64 bytes) override {
    static constexpr u8 kZeros[64 * kKiB] = {};
    for (; bytes > sizeof kZeros; bytes -= sizeof kZeros) STASIS_TRY(write(kZeros));
    return write({kZeros, bytes});
  }

 private:
  int fd_;
  const std::string& name_;
};

}  // namespace

Result<SaveReport> save(const std::string& path, const Image& image, const RamSource& ram, SaveProgress* progress, const SaveOptions& options) {
  STASIS_TRY_SET(Publication publication, Publication::begin(path));
  FileSink sink(publication.fd(), path);
  STASIS_TRY_SET(SaveReport report, encode(sink, image, ram, progress, options));
  STASIS_TRY(publication.publish());
  return report;
}

Result<SaveReport> save_stream(int fd, const std::string& name, const Image& image, const RamSource& ram, SaveProgress* progress,
                               const SaveOptions& options) {
  StreamSink sink(fd, name);
  return encode(sink, image, ram, progress, options);
}

}  // namespace stasis::snapshot
