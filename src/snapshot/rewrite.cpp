// Reading one snapshot and writing it as another.
#include "snapshot/rewrite.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "snapshot/format.hpp"
#include "snapshot/ram_image.hpp"

namespace stasis::snapshot {
namespace {

// Nothing that is in the file may be lost on the way.
Result<> check_carried(const OpenSnapshot& from) {
  for (const SectionInfo& section : from.sections) {
    if (section.known || std::ranges::find(from.image.foreign, section.name, &ForeignSection::name) != from.image.foreign.end()) continue;
    return fail(ErrorCode::unsupported, from.path,
                fmt::format("section '{}' ({} bytes) is unknown here and cannot be carried along", section.name, section.length),
                fmt::format("use the Stasis that wrote it: {} {}", from.image.producer.program, from.image.producer.version));
  }
  return {};
}

// A child that replaced its own parent would have none.
Result<> check_no_ancestor(const Destination& to, const OpenSnapshot* parent) {
  if (to.fd >= 0 || !parent || !is_file_of(*parent, to.name)) return {};
  return fail(ErrorCode::usage, to.name, "is an ancestor of what would be written there", "choose another name, or write a whole snapshot");
}

}  // namespace

Result<SaveReport> rewrite(const OpenSnapshot& from, const Image& image, const Destination& to, SaveOptions options, SaveProgress* progress) {
  STASIS_TRY(check_carried(from));
  STASIS_TRY(check_no_ancestor(to, options.parent));
  STASIS_TRY_SET(const RamImage ram, RamImage::load(from, progress));
  options.source = &from;
  if (to.fd >= 0) return save_stream(to.fd, to.name, image, ram.source(), progress, options);
  return save(to.name, image, ram.source(), progress, options);
}

}  // namespace stasis::snapshot
