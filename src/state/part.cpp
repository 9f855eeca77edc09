// A single part, outside a machine: restored, and written for an older release.
#include "state/part.hpp"

#include <algorithm>

namespace stasis::state {

Result<> restore_one(Part& part, const std::string& object, const cbor::Value& record, u16 version, const Schema* schema) {
  Problems problems;
  const LoadContext context{.object = object, .version = version, .problems = problems, .schema = schema};
  const Part::Commit commit = part.stage(record, context);
  if (!commit) {
    std::string all;
    for (const Error& problem : problems) all += (all.empty() ? "" : "; ") + problem.message;
    const bool damaged = problems.empty() || std::ranges::find(problems, ErrorCode::bad_file, &Error::code) != problems.end();
    return fail(damaged ? ErrorCode::bad_file : ErrorCode::unsupported, object, all, problems.empty() ? "" : problems.front().hint);
  }
  commit();
  part.settle();
  return {};
}

ForRelease write_for_release(const Release& release, const std::string& object, const Part& part, Problems& problems) {
  return detail::write_known(release, object, part.schema(), problems,
                             [&](u16 version) { return part.capture_for(version, object, problems); });
}

}  // namespace stasis::state
