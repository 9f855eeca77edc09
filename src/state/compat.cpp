// Records for an older Stasis, by their schemas.
#include "state/compat.hpp"

#include <algorithm>

namespace stasis::state {
namespace {

using cbor::Array;
using cbor::Map;
using cbor::Value;

constexpr std::size_t kMostShown = 100;  // characters of a value in a message
constexpr const char* kHint = "write it for a newer release";

std::string_view name_at(const FieldSchema& field, u16 version) {
  for (const FormerName& former : field.renamed_from)
    if (former.until > version) return former.name;
  return field.name;
}

std::string shown(const Value& value, const FieldSchema& field) {
  std::string text = show(value, field);
  if (text.size() > kMostShown) text = text.substr(0, kMostShown) + "…";
  return text;
}

// One record on its way to an older version. Without `problems`, what that version cannot hold is silently left out.
class Downgrade {
 public:
  Downgrade(const Schema& schema, u16 version, const std::string& object, Problems* problems)
      : schema_(schema), version_(version), object_(object), problems_(problems) {}

  Value record(const Value& value, const std::vector<FieldSchema>& fields, const std::string& path) {
    const Map* map = value.as<Map>();
    if (!map) return value;
    Map out;
    for (const FieldSchema& field : fields) {
      const Value* held = map->find(field.name);
      if (!held) continue;
      const std::string here = path.empty() ? field.name : path + "/" + field.name;
      if (field.since > version_) lose(*held, field, here);
      else out.set(name_at(field, version_), kept(*held, field, here));
    }
    return Value(std::move(out));
  }

  FieldSchema field(const FieldSchema& now) {
    FieldSchema out = now;
    out.name = name_at(now, version_);
    for (const FormerBounds& former : now.widened)
      if (former.until > version_) {
        out.least = former.least, out.most = former.most, out.mask = former.mask;
        if (out.most < out.names.size()) out.names.resize(out.most + 1);
        break;
      }
    std::erase_if(out.renamed_from, [&](const FormerName& former) { return former.until > version_; });
    std::erase_if(out.widened, [&](const FormerBounds& former) { return former.until > version_; });
    out.members = fields(now.members);
    if (now.default_value) out.default_value = Downgrade(schema_, version_, object_, nullptr).kept(*now.default_value, now, "");
    if (out.default_value && is_zero(*out.default_value, out)) out.default_value.reset();
    return out;
  }

  std::vector<FieldSchema> fields(const std::vector<FieldSchema>& now) {
    std::vector<FieldSchema> out;
    for (const FieldSchema& f : now)
      if (f.since <= version_) out.push_back(field(f));
    return out;
  }

 private:
  void refuse(std::string message) {
    problems_->push_back({ErrorCode::unsupported, object_, std::move(message), kHint});
  }

  Value kept(const Value& value, const FieldSchema& field, const std::string& path) {
    if (field.members.empty()) {
      if (problems_) check_bounds(value, field, path);
      return value;
    }
    const Array* items = value.as<Array>();
    if (!items) return record(value, field.members, path);
    Array out;
    for (std::size_t i = 0; i < items->size(); ++i) out.push_back(kept((*items)[i], field, fmt::format("{}/{}", path, i)));
    return Value(std::move(out));
  }

  void check_bounds(const Value& value, const FieldSchema& now, const std::string& path) {
    if (now.widened.empty()) return;
    const FieldSchema then = field(now);
    if (fits(value, then)) return;
    refuse(fmt::format("{} field {} is {}, version {} allows {} to {}{}", schema_.kind, path, shown(value, now), version_, then.least,
                       then.most, then.mask == ~0ull ? "" : fmt::format(" in bits {:#x}", then.mask)));
  }

  void lose(const Value& value, const FieldSchema& field, const std::string& path) {
    if (!problems_ || field.skippable || is_default(value, field)) return;
    name_loss(value, field, field.default_value ? &*field.default_value : nullptr, field.since, path);
  }

  // Down to the single fields that differ. `assumed` null: the zero of the type.
  void name_loss(const Value& value, const FieldSchema& field, const Value* assumed, u16 since, const std::string& path) {
    if (assumed ? value == *assumed : is_zero(value, field)) return;
    const Map* map = value.as<Map>();
    const Map* default_map = assumed ? assumed->as<Map>() : nullptr;
    if (!map) {
      const std::string without = assumed ? shown(*assumed, field) : field.type == "bool" ? "false" : array_type(field.type).item.empty() ? "0" : "zeros or nothing";
      return refuse(fmt::format("{} field {} (since version {}) is {}, an older Stasis would lose it (it assumes {})", schema_.kind, path,
                                since, shown(value, field), field.type == "text" && !assumed ? "\"\"" : without));
    }
    for (const FieldSchema& member : field.members)
      if (const Value* held = map->find(member.name)) {
        const Value* otherwise = default_map ? default_map->find(member.name) : member.default_value ? &*member.default_value : nullptr;
        name_loss(*held, member, otherwise, std::max(since, member.since), path + "/" + member.name);
      }
  }

  const Schema& schema_;
  const u16 version_;
  const std::string& object_;
  Problems* problems_;
};

// A record from a file may not be what its own schema says.
bool fits_itself(const Schema& schema, const Value& value, const std::string& object, Problems& problems) {
  const std::size_t before = problems.size();
  const auto refuse = [&](std::string what) {
    problems.push_back({ErrorCode::bad_file, object, schema.kind + " " + std::move(what), "the file is damaged or not ours"});
  };
  const Map* map = value.as<Map>();
  if (!map) return refuse("is no map"), false;
  for (const FieldSchema& field : schema.fields) {
    const Value* held = map->find(field.name);
    if (!held) refuse(fmt::format("field {} is missing", field.name));
    else if (!fits(*held, field)) refuse(fmt::format("field {} is {}, which its own schema does not allow", field.name, shown(*held, field)));
  }
  for (const auto& [name, held] : map->members())
    if (std::ranges::find(schema.fields, name, &FieldSchema::name) == schema.fields.end())
      refuse(fmt::format("field {} is not in its own schema", name));
  return problems.size() == before;
}

}  // namespace

Schema schema_at(const Schema& schema, u16 version) {
  const std::string nobody;
  return {.kind = schema.kind, .version = version, .reshaped = schema.reshaped, .skippable = schema.skippable,
          .fields = Downgrade(schema, version, nobody, nullptr).fields(schema.fields)};
}

std::optional<Written> write_for(const Schema& schema, const Value& value, u16 version, const std::string& object, Problems& problems) {
  if (version >= schema.version) return Written{schema, value};
  if (version < schema.reshaped) {
    detail::refuse_downgrade(schema, version, fmt::format("has another shape since version {}", schema.reshaped), object, problems);
    return {};
  }
  if (!fits_itself(schema, value, object, problems)) return {};
  const std::size_t before = problems.size();
  Value out = Downgrade(schema, version, object, &problems).record(value, schema.fields, "");
  if (problems.size() != before) return {};
  return Written{schema_at(schema, version), std::move(out)};
}

std::optional<u16> Release::version_of(std::string_view kind) const {
  const auto found = std::ranges::find(kinds, kind, &KindVersion::kind);
  return found == kinds.end() ? std::nullopt : std::optional(found->version);
}

ForRelease write_for_release(const Release& release, const std::string& object, const Schema& schema, const Value& value, Problems& problems) {
  return detail::write_known(release, object, schema, problems,
                             [&](u16 version) { return write_for(schema, value, version, object, problems); });
}

namespace detail {

ForRelease write_known(const Release& release, const std::string& object, const Schema& schema, Problems& problems,
                       const std::function<std::optional<Written>(u16)>& write) {
  const std::optional<u16> version = release.version_of(schema.kind);
  if (!version && schema.skippable) return {ForRelease::left_out};
  if (!version) {
    problems.push_back({ErrorCode::unsupported, object, fmt::format("Stasis {} does not know kind {}", release.name, schema.kind), kHint});
    return {};
  }
  std::optional<Written> record = write(*version);
  if (!record) return {};
  return {ForRelease::written, std::move(*record)};
}

void refuse_downgrade(const Schema& schema, u16 version, const std::string& why, const std::string& object, Problems& problems) {
  problems.push_back({ErrorCode::unsupported, object,
                      fmt::format("{} {}, and cannot be written as version {}", schema.kind, why, version), kHint});
}

}  // namespace detail
}  // namespace stasis::state
