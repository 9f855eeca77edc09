// What the walks say when a record does not fit its layout.
#include "state/codec.hpp"

#include <algorithm>

namespace stasis::state::detail {

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

void refuse_unknown(const cbor::Map& record, const std::vector<std::string_view>& known, const std::string& path,
                    const LoadContext& context) {
  for (const auto& [name, value] : record.members())
    if (std::ranges::find(known, name) == known.end())
      refuse(context, fmt::format("field '{}{}{}' is unknown here", path, path.empty() ? "" : "/", name),
             "it was written by a newer Stasis, or the file is not ours");
}

}  // namespace stasis::state::detail
