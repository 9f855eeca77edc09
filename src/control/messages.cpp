// JSON out, JSON in.
#include "control/messages.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace stasis::control {
namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

// The member's value, or T{} when it is absent or of another type.
template <class T>
T member(const Json& json, const char* name) {
  const auto at = json.find(name);
  if (at == json.end()) return T{};
  if constexpr (std::is_same_v<T, std::string>) return at->is_string() ? at->template get<std::string>() : T{};
  else if constexpr (std::is_same_v<T, bool>) return at->is_boolean() && at->template get<bool>();
  else return at->is_number_unsigned() ? static_cast<T>(at->template get<u64>()) : T{};
}

Result<Json> parse(const std::string& text, const std::string& object) {
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return fail(ErrorCode::usage, object, "sent a body that is no JSON object", "see docs/control.yaml");
  return json;
}

template <class Enum>
Result<Enum> named(const std::string& name, std::initializer_list<Enum> values, const char* field, const std::string& object) {
  for (Enum value : values)
    if (name_of(value) == name) return value;
  return fail(ErrorCode::unsupported, object, fmt::format("sent {} '{}', which this Stasis does not know", field, name),
              "use the version of stasis that runs the machine");
}

}  // namespace

std::string to_json(const MachineReport& report) {
  const VmInfo& vm = report.vm;
  Json json{{"name", vm.name},
            {"pid", report.pid},
            {"version", report.version},
            {"state", name_of(vm.state)},
            {"engine", vm.engine},
            {"engine_reason", vm.engine_reason},
            {"pace", vm.pace == Pace::fast ? "fast" : "host"},
            {"memory_bytes", vm.config.memory_bytes},
            {"cpus", vm.config.cpus},
            {"debug_console", vm.config.debug_console},
            {"debug_exit", vm.config.debug_exit},
            {"start_time", vm.config.start_time},
            {"retired", vm.retired},
            {"guest_ns", vm.guest_ns},
            {"restored_from", nullptr},
            {"save", nullptr}};
  if (!vm.restored_from.empty()) json["restored_from"] = vm.restored_from;
  if (vm.save.active)
    json["save"] = {{"path", vm.save.path}, {"bytes_done", vm.save.bytes_done}, {"bytes_total", vm.save.bytes_total}};
  return text_of(json);
}

std::string to_json(const SaveReport& report, const std::string& path) {
  return text_of({{"path", path},
                  {"file_bytes", report.file_bytes},
                  {"stored_bytes", report.stored_bytes},
                  {"pages_present", report.pages_present},
                  {"root", report.root},
                  {"digest", report.digest}});
}

std::string to_json(const Error& error) {
  Json body{{"code", name_of(error.code)}, {"object", error.object}, {"message", error.message}, {"hint", error.hint}};
  return text_of({{"error", std::move(body)}});
}

std::string digest_to_json(const std::string& digest) { return text_of({{"digest", digest}}); }

std::string save_request_to_json(const std::string& path, const std::string& cwd) {
  return text_of({{"path", path}, {"cwd", cwd}});
}

Result<MachineReport> machine_report_from(const std::string& text, const std::string& object) {
  STASIS_TRY_SET(const Json json, parse(text, object));
  MachineReport report{.vm = {}, .pid = member<int>(json, "pid"), .version = member<std::string>(json, "version")};
  VmInfo& vm = report.vm;
  vm.name = member<std::string>(json, "name");
  using enum VmState;
  STASIS_TRY_SET(vm.state, named(member<std::string>(json, "state"), {running, paused, saving, ended}, "state", object));
  vm.engine = member<std::string>(json, "engine");
  vm.engine_reason = member<std::string>(json, "engine_reason");
  vm.pace = member<std::string>(json, "pace") == "fast" ? Pace::fast : Pace::host;
  vm.config.memory_bytes = member<u64>(json, "memory_bytes");
  vm.config.cpus = member<u32>(json, "cpus");
  vm.config.debug_console = member<bool>(json, "debug_console");
  vm.config.debug_exit = member<bool>(json, "debug_exit");
  vm.config.start_time = member<u64>(json, "start_time");
  vm.retired = member<u64>(json, "retired");
  vm.guest_ns = member<u64>(json, "guest_ns");
  vm.restored_from = member<std::string>(json, "restored_from");
  if (const auto save = json.find("save"); save != json.end() && save->is_object())
    vm.save = {.active = true, .path = member<std::string>(*save, "path"), .bytes_done = member<u64>(*save, "bytes_done"),
               .bytes_total = member<u64>(*save, "bytes_total")};
  return report;
}

Result<SaveReport> save_report_from(const std::string& text, const std::string& object) {
  STASIS_TRY_SET(const Json json, parse(text, object));
  return SaveReport{.file_bytes = member<u64>(json, "file_bytes"), .stored_bytes = member<u64>(json, "stored_bytes"),
                    .pages_present = member<u64>(json, "pages_present"), .root = member<std::string>(json, "root"),
                    .digest = member<std::string>(json, "digest")};
}

Result<std::string> digest_from(const std::string& text, const std::string& object) {
  STASIS_TRY_SET(const Json json, parse(text, object));
  return member<std::string>(json, "digest");
}

Error error_from(const std::string& text, const std::string& object) {
  Error error{.code = ErrorCode::host, .object = object, .message = "refused without saying why", .hint = {}};
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("error") || !json["error"].is_object()) return error;
  const Json& body = json["error"];
  using enum ErrorCode;
  for (ErrorCode code : {usage, not_found, exists, busy, bad_file, unsupported, host, state, cancelled, permission})
    if (name_of(code) == member<std::string>(body, "code")) error.code = code;
  error.object = member<std::string>(body, "object");
  if (std::string message = member<std::string>(body, "message"); !message.empty()) error.message = std::move(message);
  error.hint = member<std::string>(body, "hint");
  return error;
}

Result<SaveRequest> save_request_from(const std::string& text) {
  STASIS_TRY_SET(const Json json, parse(text, "request"));
  for (const auto& [key, value] : json.items()) {
    if (key != "path" && key != "cwd")
      return fail(ErrorCode::usage, "request", fmt::format("has a member '{}' that is not known here", key), "send path and cwd");
    if (!value.is_string() || value.get_ref<const std::string&>().find('\0') != std::string::npos)
      return fail(ErrorCode::usage, "request", fmt::format("'{}' is no text that can be a path", key), "send it as a JSON string");
  }
  std::string path = member<std::string>(json, "path");
  const std::string cwd = member<std::string>(json, "cwd");
  if (path.empty()) return fail(ErrorCode::usage, "request", "names no path", R"(send {"path": "/srv/a.stasis"})");
  if (!path.starts_with('/')) {
    if (!cwd.starts_with('/'))
      return fail(ErrorCode::usage, "request", fmt::format("path '{}' is relative, and there is no absolute 'cwd'", path),
                  "send an absolute path, or your working directory as 'cwd'");
    path = cwd + (cwd.ends_with('/') ? "" : "/") + path;
  }
  return SaveRequest{std::move(path)};
}

}  // namespace stasis::control
