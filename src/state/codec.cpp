// What the walks say when a record does not fit its layout.
#include "state/codec.hpp"

#include <algorithm>
#include <iterator>

namespace stasis::state {
namespace detail {
namespace {

// A hostile record can hold a million mistakes. Once there are this many, more are not told: it is refused anyway.
constexpr std::size_t kMostProblems = 1000;

void refuse(const LoadContext& context, std::string message, std::string hint = "the file is damaged or not ours") {
  if (context.problems.size() < kMostProblems) context.refuse(std::move(message), std::move(hint));
}

}  // namespace

bool integer_allowed(u64 value, const FieldInfo& info, const std::string& path, const LoadContext& context) {
  if (value < info.least || value > info.most) {
    refuse(context, fmt::format("{} is {} ({:#x}), allowed is {} to {}", path, value, value, info.least, info.most));
    return false;
  }
  if (value & ~info.mask) {
    refuse(context, fmt::format("{} has reserved bits set ({:#x}), allowed bits are {:#x}", path, value, info.mask));
    return false;
  }
  return true;
}

void wrong_type(std::string_view wanted, const cbor::Value& value, const std::string& path, const LoadContext& context) {
  refuse(context, fmt::format("{} is of type {}, wanted is {}", path.empty() ? "the record" : path, value.type_name(), wanted));
}

void wrong_length(std::size_t found, std::size_t wanted, const std::string& path, const LoadContext& context) {
  refuse(context, fmt::format("{} holds {} items, allowed are {}", path, found, wanted));
}

namespace {

// Not damage: a newer Stasis understands it.
void refuse_version(const Walk& walk, std::string message) {
  constexpr std::string_view kHint = "it needs a newer Stasis, or a file that the newer one wrote with --compat for this release";
  if (walk.context.problems.size() >= kMostProblems) return;
  walk.context.problems.push_back({ErrorCode::unsupported, walk.context.object,
                                   fmt::format("{}; the record is {} version {}, known here is {}", message, walk.kind, walk.context.version, walk.known),
                                   std::string(kHint)});
}

const FieldSchema* written_as(const std::vector<FieldSchema>& fields, std::string_view name) {
  for (const FieldSchema& field : fields)
    if (field.name == name) return &field;
  return nullptr;
}

}  // namespace

Place place_of(const FieldInfo& info, const Walk& walk) {
  if (!walk.newer()) return {.name = info.name_at(walk.version)};
  if (!walk.written) return {.name = info.name};
  for (const FieldSchema& field : *walk.written)
    for (const FormerName& former : field.renamed_from)
      if (former.name == info.name && former.until > walk.known) return {field.name, &field};
  const FieldSchema* field = written_as(*walk.written, info.name);
  return {.name = info.name, .written = field, .gone = field == nullptr};
}

void refuse_missing(const FieldInfo& info, const Place& place, const std::string& path, const Walk& walk) {
  if (place.gone && info.may_skip) return;
  if (place.gone) refuse_version(walk, fmt::format("field '{}' is no longer in it", path));
  else if (walk.newer() && !walk.written) refuse_version(walk, fmt::format("field '{}' is missing", path));
  else refuse(walk.context, fmt::format("field '{}' is missing", path));
}

bool refuse_other_meaning(const FieldInfo& info, const cbor::Value& held, const Place& place, const std::string& path, const Walk& walk) {
  if (!place.written) return false;
  if (place.written->unit != info.unit_name) {
    refuse_version(walk, fmt::format("{} is in '{}', wanted is '{}'", path, place.written->unit, info.unit_name));
    return true;
  }
  const u64* number = held.as<u64>();
  if (!number || *number >= info.value_names.size() || *number >= place.written->names.size()) return false;
  if (place.written->names[*number] == info.value_names[*number]) return false;
  refuse_version(walk, fmt::format("{} is {}, which means '{}' there and '{}' here", path, *number, place.written->names[*number],
                                   info.value_names[*number]));
  return true;
}

void blame_version(const cbor::Value& held, const Place& place, std::size_t before, const Walk& walk) {
  if (!place.written || !fits(held, *place.written)) return;
  Problems& problems = walk.context.problems;
  const auto damage_from = std::stable_partition(problems.begin() + static_cast<std::ptrdiff_t>(before), problems.end(),
                                                 [](const Error& problem) { return problem.code != ErrorCode::bad_file; });
  Problems damage(std::make_move_iterator(damage_from), std::make_move_iterator(problems.end()));
  problems.erase(damage_from, problems.end());
  for (Error& problem : damage) refuse_version(walk, std::move(problem.message));
}

void refuse_unknown(const cbor::Map& record, const std::vector<std::string_view>& known, const std::string& path, const Walk& walk) {
  for (const auto& [name, value] : record.members()) {
    if (std::ranges::find(known, name) != known.end()) continue;
    const std::string here = fmt::format("{}{}{}", path, path.empty() ? "" : "/", name);
    const FieldSchema* field = walk.written ? written_as(*walk.written, name) : nullptr;
    if (field && field->skippable) continue;
    if (field || (walk.newer() && !walk.context.schema)) refuse_version(walk, fmt::format("field '{}' is unknown here", here));
    else refuse(walk.context, fmt::format("field '{}' is unknown here", here));
  }
}

bool refuse_reshaped(const Walk& walk) {
  if (!walk.written || walk.context.schema->reshaped <= walk.known) return false;
  refuse_version(walk, fmt::format("version {} gave it another shape", walk.context.schema->reshaped));
  return true;
}

}  // namespace detail

bool load_nothing(std::string_view kind, const cbor::Value& record, const LoadContext& context) {
  const cbor::Map* map = record.as<cbor::Map>();
  if (!map) return detail::wrong_type("map", record, "", context), false;
  const std::size_t before = context.problems.size();
  const bool guided = context.schema && context.version > 1;
  detail::refuse_unknown(*map, {}, "", {context, kind, 1, context.version, guided ? &context.schema->fields : nullptr});
  return context.problems.size() == before;
}

}  // namespace stasis::state
