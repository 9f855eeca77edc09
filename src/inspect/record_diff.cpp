// Comparing records member by member.
#include "inspect/record_diff.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace stasis::inspect {
namespace {

using state::FieldSchema;

constexpr std::size_t kBytesShown = 16, kWholeBytes = 32, kTextShown = 200;
const FieldSchema kUnnamed{};  // for a member that no schema names

const FieldSchema& member_of(const std::vector<FieldSchema>& fields, std::string_view name) {
  const auto at = std::find_if(fields.begin(), fields.end(), [&](const FieldSchema& field) { return field.name == name; });
  return at == fields.end() ? kUnnamed : *at;
}

std::string text_of(const cbor::Value* value, const FieldSchema& schema) {
  if (!value) return {};
  std::string out = state::show(*value, schema);
  if (out.size() > kTextShown) out = out.substr(0, kTextShown) + "…";
  return out;
}

// "[16] 00 01 02 …": from the first byte that differs.
std::string excerpt(const cbor::ByteString& bytes, std::size_t first) {
  const std::size_t from = std::min(first, bytes.size()), size = std::min(kBytesShown, bytes.size() - from);
  const Bytes shown = Bytes(bytes).subspan(from, size);
  return fmt::format("[{}] {:02x}{}", from, fmt::join(shown, " "), from + size < bytes.size() ? " …" : "");
}

// How far a number went; for flags and names that says nothing.
std::string distance(const cbor::Value& a, const cbor::Value& b, const FieldSchema& schema) {
  const u64 *from = a.as<u64>(), *to = b.as<u64>();
  if (!from || !to || schema.hex || !schema.names.empty()) return {};
  const std::string unit = schema.unit.empty() ? "" : " " + schema.unit;
  return *to > *from ? fmt::format("+{}{}", *to - *from, unit) : fmt::format("-{}{}", *from - *to, unit);
}

class Comparison {
 public:
  explicit Comparison(RecordDiff& out) : out_(out) {}

  void records(const snapshot::PartRecord& a, const snapshot::PartRecord& b) {
    if (a.schema.kind != b.schema.kind) note(a.path + " (kind)", a.schema.kind, b.schema.kind);
    if (a.schema.version != b.schema.version)
      note(a.path + " (version)", fmt::format("{}", a.schema.version), fmt::format("{}", b.schema.version));
    FieldSchema top;
    top.members = a.schema.fields;
    // What only the newer version names is told by that one.
    for (const FieldSchema& field : b.schema.fields)
      if (&member_of(top.members, field.name) == &kUnnamed) top.members.push_back(field);
    values(a.path, &a.state, &b.state, top);
  }

 private:
  void note(std::string path, std::string a, std::string b) { add({.path = std::move(path), .a = std::move(a), .b = std::move(b)}); }

  void add(FieldChange change) {
    if (out_.fields.size() < kMostChanges) out_.fields.push_back(std::move(change));
    else ++out_.left_out;
  }

  void values(const std::string& path, const cbor::Value* a, const cbor::Value* b, const FieldSchema& schema) {
    if (a && b && *a == *b) return;
    if (a && b && a->as<cbor::Map>() && b->as<cbor::Map>()) return maps(path, *a->as<cbor::Map>(), *b->as<cbor::Map>(), schema);
    if (a && b && a->as<cbor::Array>() && b->as<cbor::Array>()) return arrays(path, *a->as<cbor::Array>(), *b->as<cbor::Array>(), schema);
    FieldChange change{.path = path, .help = schema.help, .value_a = a, .value_b = b};
    const auto* bytes_a = a ? a->as<cbor::ByteString>() : nullptr;
    const auto* bytes_b = b ? b->as<cbor::ByteString>() : nullptr;
    if (bytes_a && bytes_b) bytes(change, *bytes_a, *bytes_b);
    else change.a = text_of(a, schema), change.b = text_of(b, schema);
    if (a && b && change.note.empty()) change.note = distance(*a, *b, schema);
    add(std::move(change));
  }

  static void bytes(FieldChange& change, const cbor::ByteString& a, const cbor::ByteString& b) {
    if (a.size() == b.size() && a.size() <= kWholeBytes) {
      change.a = fmt::format("{:02x}", fmt::join(a, " "));
      change.b = fmt::format("{:02x}", fmt::join(b, " "));
      return;
    }
    const std::size_t common = std::min(a.size(), b.size());
    std::size_t differing = 0, first = common;
    for (std::size_t i = common; i-- > 0;)
      if (a[i] != b[i]) ++differing, first = i;
    change.a = excerpt(a, first);
    change.b = excerpt(b, first);
    change.note = a.size() == b.size() ? fmt::format("{} of {} bytes differ", differing, a.size())
                                       : fmt::format("{} bytes, {} bytes; {} of the first {} differ", a.size(), b.size(), differing, common);
  }

  void maps(const std::string& path, const cbor::Map& a, const cbor::Map& b, const FieldSchema& schema) {
    for (const FieldSchema& field : schema.members) values(path + "/" + field.name, a.find(field.name), b.find(field.name), field);
    const auto unnamed = [&](std::string_view name) { return &member_of(schema.members, name) == &kUnnamed; };
    for (const auto& [name, value] : a.members())
      if (unnamed(name)) values(path + "/" + name, &value, b.find(name), kUnnamed);
    for (const auto& [name, value] : b.members())
      if (unnamed(name) && !a.find(name)) values(path + "/" + name, nullptr, &value, kUnnamed);
  }

  void arrays(const std::string& path, const cbor::Array& a, const cbor::Array& b, const FieldSchema& schema) {
    for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i)
      values(fmt::format("{}/{}", path, i), i < a.size() ? &a[i] : nullptr, i < b.size() ? &b[i] : nullptr, schema);
  }

  RecordDiff& out_;
};

}  // namespace

RecordDiff diff_records(const snapshot::Image& a, const snapshot::Image& b) {
  RecordDiff out;
  Comparison comparison(out);
  comparison.records(a.machine, b.machine);
  std::map<std::string_view, const snapshot::PartRecord*> in_b;
  for (const auto& part : b.parts) in_b.emplace(part.path, &part);
  for (const auto& part : a.parts) {
    const auto at = in_b.find(part.path);
    if (at == in_b.end()) {
      out.only_in_a.push_back(part.path);
      continue;
    }
    comparison.records(part, *at->second);
    in_b.erase(at);
  }
  for (const auto& [path, part] : in_b) out.only_in_b.emplace_back(path);
  return out;
}

}  // namespace stasis::inspect
