// `--config FILE.toml`: a table of keys, each with the one reader of its type.
#include "machine/config_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <span>

#include "base/file_descriptor.hpp"
#include "base/size.hpp"

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace stasis {
namespace {

constexpr u64 kMostBytes = kMiB;

// One key being read: where it stands, and how to refuse it.
struct Value {
  const std::string& path;
  std::string_view key;
  const toml::node& node;

  std::unexpected<Error> refuse(std::string_view found, std::string_view allowed) const {
    return fail(ErrorCode::usage, fmt::format("{}:{}", path, node.source().begin.line),
                fmt::format("{} is {}, allowed is {}", key, found, allowed), "see `stasis run --help`");
  }
  std::unexpected<Error> wrong_type(std::string_view allowed) const {
    return refuse(fmt::format("of type {}", name_of_type()), allowed);
  }
  std::string_view name_of_type() const {
    switch (node.type()) {
      case toml::node_type::table: return "table";
      case toml::node_type::array: return "array";
      case toml::node_type::string: return "string";
      case toml::node_type::integer: return "integer";
      case toml::node_type::floating_point: return "float";
      case toml::node_type::boolean: return "boolean";
      default: return "date or time";
    }
  }
  const std::string* text() const { return node.as_string() ? &node.as_string()->get() : nullptr; }
  std::string joined(std::string_view file) const {
    return (std::filesystem::path(path).parent_path() / file).lexically_normal().string();
  }
};

Result<> read_text(const Value& value, std::optional<std::string>& out) {
  const std::string* text = value.text();
  if (!text) return value.wrong_type("a string");
  if (text->find('\0') != std::string::npos) return value.refuse("a string with a zero byte", "a string without");
  out = *text;
  return {};
}

Result<> read_path(const Value& value, std::optional<std::string>& out) {
  STASIS_TRY(read_text(value, out));
  if (out->empty()) return value.refuse("an empty string", "the path of a file");
  out = value.joined(*out);
  return {};
}

Result<> read_flag(const Value& value, std::optional<bool>& out) {
  if (!value.node.is_boolean()) return value.wrong_type("true or false");
  out = value.node.as_boolean()->get();
  return {};
}

Result<> read_count(const Value& value, u64 least, u64 most, std::optional<u64>& out) {
  const std::string allowed = fmt::format("an integer from {} to {}", least, most);
  if (!value.node.is_integer()) return value.wrong_type(allowed);
  const i64 number = value.node.as_integer()->get();
  if (number < 0 || static_cast<u64>(number) < least || static_cast<u64>(number) > most)
    return value.refuse(fmt::format("{}", number), allowed);
  out = static_cast<u64>(number);
  return {};
}

Result<> read_size(const Value& value, std::optional<u64>& out) {
  constexpr const char* kAllowed = "a string like \"512M\" or an integer of bytes";
  if (value.node.is_integer()) return read_count(value, 1, static_cast<u64>(INT64_MAX), out);
  const std::string* text = value.text();
  if (!text) return value.wrong_type(kAllowed);
  const Result<u64> size = parse_size(*text);
  if (!size) return value.refuse(fmt::format("\"{}\"", text->substr(0, 64)), kAllowed);
  out = *size;
  return {};
}

Result<> read_choice(const Value& value, std::span<const std::string_view> choices, std::optional<std::string>& out) {
  const std::string allowed = fmt::format("one of {}", fmt::join(choices, ", "));
  const std::string* text = value.text();
  if (!text) return value.wrong_type(allowed);
  if (std::find(choices.begin(), choices.end(), *text) == choices.end())
    return value.refuse(fmt::format("\"{}\"", text->substr(0, 64)), allowed);
  out = *text;
  return {};
}

// stdio, none, file:PATH, unix:PATH
Result<> read_stream(const Value& value, std::optional<std::string>& out) {
  constexpr const char* kAllowed = "one of stdio, none, file:PATH, unix:PATH";
  if (!value.text()) return value.wrong_type(kAllowed);
  STASIS_TRY(read_text(value, out));
  if (*out == "stdio" || *out == "none") return {};
  for (const std::string_view kind : {"file:", "unix:"}) {
    if (out->starts_with(kind) && out->size() > kind.size()) {
      out = std::string(kind) + value.joined(out->substr(kind.size()));
      return {};
    }
  }
  return value.refuse(fmt::format("\"{}\"", out->substr(0, 64)), kAllowed);
}

Result<> read_debugcon(const Value& value, std::optional<std::string>& out) {
  if (value.node.is_boolean()) {
    if (value.node.as_boolean()->get()) out = "";
    return {};
  }
  if (!value.text()) return value.wrong_type("true, false, stdio, none, file:PATH or unix:PATH");
  return read_stream(value, out);
}

Result<> read_rtc(const Value& value, std::optional<std::string>& out) {
  constexpr const char* kAllowed = "\"now\" or an integer of seconds since 1970-01-01 UTC";
  if (value.node.is_integer()) {
    std::optional<u64> seconds;
    STASIS_TRY(read_count(value, 0, static_cast<u64>(INT64_MAX), seconds));
    out = fmt::format("{}", *seconds);
    return {};
  }
  const std::string* text = value.text();
  if (!text) return value.wrong_type(kAllowed);
  if (*text != "now") return value.refuse(fmt::format("\"{}\"", text->substr(0, 64)), kAllowed);
  out = *text;
  return {};
}

Result<> read_cpus(const Value& value, std::optional<u32>& out) {
  std::optional<u64> number;
  STASIS_TRY(read_count(value, 1, 16, number));
  out = static_cast<u32>(*number);
  return {};
}

constexpr std::string_view kModels[] = {"x86-64-v2", "x86-64-v3", "host"};
constexpr std::string_view kEngines[] = {"auto", "soft", "kvm"};
constexpr std::string_view kPaces[] = {"host", "fast"};

struct Key {
  std::string_view name;
  Result<> (*read)(const Value& value, ConfigFile& out);
};
using C = ConfigFile;
constexpr auto kKeys = std::to_array<Key>({
    {"name", [](const Value& v, C& c) { return read_text(v, c.name); }},
    {"kernel", [](const Value& v, C& c) { return read_path(v, c.kernel); }},
    {"initrd", [](const Value& v, C& c) { return read_path(v, c.initrd); }},
    {"cmdline", [](const Value& v, C& c) { return read_text(v, c.cmdline); }},
    {"memory", [](const Value& v, C& c) { return read_size(v, c.memory); }},
    {"cpus", [](const Value& v, C& c) { return read_cpus(v, c.cpus); }},
    {"cpu", [](const Value& v, C& c) { return read_choice(v, kModels, c.cpu); }},
    {"tsc", [](const Value& v, C& c) { return read_count(v, 1'000'000, 100'000'000'000, c.tsc); }},
    {"engine", [](const Value& v, C& c) { return read_choice(v, kEngines, c.engine); }},
    {"console", [](const Value& v, C& c) { return read_stream(v, c.console); }},
    {"rtc", [](const Value& v, C& c) { return read_rtc(v, c.rtc); }},
    {"pace", [](const Value& v, C& c) { return read_choice(v, kPaces, c.pace); }},
    {"debugcon", [](const Value& v, C& c) { return read_debugcon(v, c.debugcon); }},
    {"debug-exit", [](const Value& v, C& c) { return read_flag(v, c.debug_exit); }},
    {"no-reboot", [](const Value& v, C& c) { return read_flag(v, c.no_reboot); }},
    {"detach", [](const Value& v, C& c) { return read_flag(v, c.detach); }},
    {"paused", [](const Value& v, C& c) { return read_flag(v, c.paused); }},
    {"stop-at", [](const Value& v, C& c) { return read_count(v, 0, static_cast<u64>(INT64_MAX), c.stop_at); }},
    {"suspend-to", [](const Value& v, C& c) { return read_path(v, c.suspend_to); }},
});

std::string names_of_keys() {
  std::string out;
  for (const Key& key : kKeys) out += (out.empty() ? "" : ", ") + std::string(key.name);
  return out;
}

}  // namespace

Result<ConfigFile> parse_config_file(std::string_view text, const std::string& path) {
  const toml::parse_result parsed = toml::parse(text, path);
  if (!parsed) {
    const toml::parse_error& problem = parsed.error();
    return fail(ErrorCode::usage, fmt::format("{}:{}", path, problem.source().begin.line),
                fmt::format("no TOML: {}", problem.description()), "lines have the form KEY = VALUE, texts in quotes");
  }
  ConfigFile config;
  for (const auto& [name, node] : parsed.table()) {
    const auto key = std::find_if(kKeys.begin(), kKeys.end(), [&](const Key& k) { return k.name == name.str(); });
    if (key == kKeys.end())
      return fail(ErrorCode::usage, fmt::format("{}:{}", path, name.source().begin.line),
                  fmt::format("unknown key `{}`, allowed are {}", name.str().substr(0, 64), names_of_keys()),
                  "see `stasis run --help`");
    STASIS_TRY(key->read(Value{path, key->name, node}, config));
  }
  return config;
}

Result<ConfigFile> read_config_file(const std::string& path) {
  STASIS_TRY_SET(const std::string text, read_whole_file(path, kMostBytes));
  return parse_config_file(text, path);
}

}  // namespace stasis
