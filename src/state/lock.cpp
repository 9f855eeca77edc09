// Layouts as text.
#include "state/lock.hpp"

#include <fmt/format.h>

namespace stasis::state {
namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

// RFC 8949, section 8, with no space outside of texts.
std::string diagnostic(const cbor::Value& value) {
  if (const u64* number = value.as<u64>()) return fmt::format("{}", *number);
  if (const auto* negative = value.as<cbor::Negative>()) return fmt::format("-{}", u128{negative->magnitude} + 1);
  if (const bool* boolean = value.as<bool>()) return *boolean ? "true" : "false";
  if (const std::string* text = value.as<std::string>()) return quoted(*text);
  if (const auto* bytes = value.as<cbor::ByteString>()) return fmt::format("h'{:02x}'", fmt::join(*bytes, ""));
  std::string out;
  if (const auto* items = value.as<cbor::Array>()) {
    for (const cbor::Value& item : *items) out += (out.empty() ? "" : ",") + diagnostic(item);
    return "[" + out + "]";
  }
  if (const auto* map = value.as<cbor::Map>()) {
    for (const auto& [name, item] : map->members()) out += (out.empty() ? "" : ",") + quoted(name) + ":" + diagnostic(item);
    return "{" + out + "}";
  }
  return "null";
}

void add_fields(std::string& out, const std::string& prefix, const std::vector<FieldSchema>& fields) {
  for (const FieldSchema& f : fields) {
    out += fmt::format("{}{} {}", prefix, f.name, f.type);
    if (!f.unit.empty()) out += " unit=" + (f.unit.find(' ') == f.unit.npos ? f.unit : quoted(f.unit));
    if (f.since != 1) out += fmt::format(" since={}", f.since);
    if (f.least != 0 || f.most != ~0ull) out += fmt::format(" range={}..{}", f.least, f.most);
    if (f.mask != ~0ull) out += fmt::format(" mask={:#x}", f.mask);
    if (f.default_value) out += " default=" + diagnostic(*f.default_value);
    if (f.skippable) out += " skippable";
    for (const FormerName& former : f.renamed_from) out += fmt::format(" was={}@{}", former.name, former.until);
    for (const FormerBounds& former : f.widened)
      out += fmt::format(" before={}:{}..{}:{:#x}", former.until, former.least, former.most, former.mask);
    if (!f.names.empty()) out += fmt::format(" names={}", fmt::join(f.names, ","));
    out += '\n';
    add_fields(out, prefix + f.name + "/", f.members);
  }
}

}  // namespace

std::string lock_text(const Schema& schema) {
  std::string out;
  const std::string prefix = fmt::format("{} v{} ", schema.kind, schema.version);
  if (schema.fields.empty()) out += prefix + "(no state)\n";
  if (schema.reshaped != 1) out += fmt::format("{}(shape of version {})\n", prefix, schema.reshaped);
  if (schema.skippable) out += prefix + "(skippable)\n";
  add_fields(out, prefix, schema.fields);
  return out;
}

}  // namespace stasis::state
