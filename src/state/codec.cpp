// What the walks say when a record does not fit its layout.
#include "state/codec.hpp"

#include <algorithm>

namespace stasis::state::detail {

bool integer_allowed(u64 value, const FieldInfo& info, const std::string& path, const LoadContext& context) {
  if (value < info.least || value > info.most) {
    context.refuse(fmt::format("{} is {} ({:#x}), allowed is {} to {}", path, value, value, info.least, info.most));
    return false;
  }
  if (value & ~info.mask) {
    context.refuse(fmt::format("{} has reserved bits set ({:#x}), allowed bits are {:#x}", path, value, info.mask));
    return false;
  }
  return true;
}

void wrong_type(std::string_view wanted, const cbor::Value& value, const std::string& path, const LoadContext& context) {
  context.refuse(fmt::format("{} is of type {}, wanted is {}", path.empty() ? "the record" : path, value.type_name(), wanted));
}

void wrong_length(std::size_t found, std::size_t wanted, const std::string& path, const LoadContext& context) {
  context.refuse(fmt::format("{} holds {} items, allowed are {}", path, found, wanted));
}

void refuse_unknown(const cbor::Map& record, const std::vector<std::string_view>& known, const std::string& path,
                    const LoadContext& context) {
  for (const auto& [name, value] : record.members())
    if (std::ranges::find(known, name) == known.end())
      context.refuse(fmt::format("field '{}{}{}' is unknown here", path, path.empty() ? "" : "/", name),
                     "it was written by a newer Stasis, or the file is not ours");
}

}  // namespace stasis::state::detail
