// Restoring a single part, outside a machine.
#include "state/part.hpp"

namespace stasis::state {

Result<> restore_one(Part& part, const std::string& object, const cbor::Value& record, u16 version) {
  Problems problems;
  const LoadContext context{.object = object, .version = version, .problems = problems};
  const Part::Commit commit = part.stage(record, context);
  if (!commit) {
    std::string all;
    for (const Error& problem : problems) all += (all.empty() ? "" : "; ") + problem.message;
    return fail(ErrorCode::bad_file, object, all, problems.empty() ? "" : problems.front().hint);
  }
  commit();
  part.settle();
  return {};
}

}  // namespace stasis::state
