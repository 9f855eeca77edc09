// JSON out, JSON in.
#include "control/messages.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <algorithm>

namespace stasis::control {
namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

Json body_of(const Error& error) {
  return {{"code", name_of(error.code)}, {"object", error.object}, {"message", error.message}, {"hint", error.hint}};
}

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

constexpr std::pair<const char*, std::string SaveRequest::*> kSaveTexts[] = {
    {"path", &SaveRequest::path}, {"encrypt_key", &SaveRequest::encrypt_key}, {"incremental_from", &SaveRequest::incremental_from},
    {"decrypt_key", &SaveRequest::decrypt_key}, {"compat", &SaveRequest::compat}};

constexpr std::size_t kMostParents = 1000;

bool is_path(const Json& value) { return value.is_string() && value.get_ref<const std::string&>().find('\0') == std::string::npos; }

// What the body leaves out stays as it is in `error`.
Error error_from_body(const Json& body, Error error) {
  using enum ErrorCode;
  for (ErrorCode code : {usage, not_found, exists, busy, bad_file, unsupported, host, state, cancelled, permission})
    if (name_of(code) == member<std::string>(body, "code")) error.code = code;
  error.object = member<std::string>(body, "object");
  if (std::string message = member<std::string>(body, "message"); !message.empty()) error.message = std::move(message);
  error.hint = member<std::string>(body, "hint");
  return error;
}

// A path as the process understands it that works for many clients.
Result<> make_absolute(std::string& path, const char* name, const std::string& cwd) {
  if (path.empty() || path.starts_with('/')) return {};
  if (!cwd.starts_with('/'))
    return fail(ErrorCode::usage, "request", fmt::format("{} '{}' is relative, and there is no absolute 'cwd'", name, path),
                "send an absolute path, or your working directory as 'cwd'");
  path = cwd + (cwd.ends_with('/') ? "" : "/") + path;
  return {};
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
            {"save", nullptr},
            {"problem", nullptr}};
  if (!vm.restored_from.empty()) json["restored_from"] = vm.restored_from;
  if (vm.save.active)
    json["save"] = {{"path", vm.save.path}, {"bytes_done", vm.save.bytes_done}, {"bytes_total", vm.save.bytes_total}, {"written", vm.save.written}};
  if (vm.problem) json["problem"] = body_of(*vm.problem);
  return text_of(json);
}

std::string to_json(const SaveReport& report, const std::string& path) {
  return text_of({{"path", path},
                  {"file_bytes", report.file_bytes},
                  {"stored_bytes", report.stored_bytes},
                  {"pages_present", report.pages_present},
                  {"pages_nonzero", report.pages_nonzero},
                  {"root", report.root},
                  {"digest", report.digest}});
}

std::string to_json(const Error& error) { return text_of({{"error", body_of(error)}}); }

std::string to_json(const std::vector<Error>& problems) {
  Json list = Json::array();
  for (const Error& problem : problems) list.push_back(body_of(problem));
  return text_of({{"ok", problems.empty()}, {"problems", std::move(list)}});
}

std::string digest_to_json(const std::string& digest) { return text_of({{"digest", digest}}); }

// What is not asked for is left out, so that an older machine understands what it can do.
std::string save_request_to_json(const SaveRequest& request) {
  Json json{{"path", request.path}};
  if (request.stream) json["stream"] = true;
  if (request.confirm) json["confirm"] = true;
  if (request.encoding == snapshot::Encoding::packed) json["encoding"] = name_of(request.encoding), json["level"] = request.level;
  for (const auto& [name, field] : kSaveTexts)
    if (!(request.*field).empty() && field != &SaveRequest::path) json[name] = request.*field;
  if (!request.parents.empty()) json["parents"] = request.parents;
  return text_of(json);
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
               .bytes_total = member<u64>(*save, "bytes_total"), .written = member<bool>(*save, "written")};
  if (const auto problem = json.find("problem"); problem != json.end() && problem->is_object())
    vm.problem = error_from_body(*problem, {.code = ErrorCode::host, .object = {}, .message = "is not told", .hint = {}});
  return report;
}

Result<SaveReport> save_report_from(const std::string& text, const std::string& object) {
  STASIS_TRY_SET(const Json json, parse(text, object));
  return SaveReport{.file_bytes = member<u64>(json, "file_bytes"), .stored_bytes = member<u64>(json, "stored_bytes"),
                    .pages_present = member<u64>(json, "pages_present"), .pages_nonzero = member<u64>(json, "pages_nonzero"), .root = member<std::string>(json, "root"),
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
  return error_from_body(json["error"], std::move(error));
}

Result<SaveRequest> save_request_from(const std::string& text) {
  STASIS_TRY_SET(const Json json, parse(text, "request"));
  SaveRequest out;
  std::string cwd;
  for (const auto& [key, value] : json.items()) {
    const auto wrong = [&](std::string_view wanted, const char* hint) {
      return fail(ErrorCode::usage, "request", fmt::format("'{}' is no {}", key, wanted), hint);
    };
    const auto field = std::ranges::find(kSaveTexts, key, [](const auto& each) { return std::string_view(each.first); });
    if (field != std::end(kSaveTexts) || key == "cwd") {
      if (!is_path(value))
        return wrong("text that can be a path", "send it as a JSON string");
      (key == "cwd" ? cwd : out.*field->second) = value.get<std::string>();
    } else if (key == "parents") {
      if (!value.is_array() || value.size() > kMostParents || !std::ranges::all_of(value, is_path))
        return wrong("array of texts that can be paths", "send at most 1000 JSON strings");
      out.parents = value.get<std::vector<std::string>>();
    } else if (key == "stream" || key == "confirm") {
      if (!value.is_boolean()) return wrong("boolean", "send true or false");
      (key == "stream" ? out.stream : out.confirm) = value.get<bool>();
    } else if (key == "encoding") {
      if (value != "mapped" && value != "packed") return wrong("encoding", "send \"mapped\" or \"packed\"");
      out.encoding = value == "packed" ? snapshot::Encoding::packed : snapshot::Encoding::mapped;
    } else if (key == "level") {
      if (!value.is_number_unsigned() || value.get<u64>() > snapshot::kMostLevel) return wrong("level", "send a number from 0 to 19");
      out.level = value.get<int>();
    } else {
      return fail(ErrorCode::usage, "request", fmt::format("has a member '{}' that is not known here", key),
                  "send path, cwd, stream, confirm, encoding, level, encrypt_key, incremental_from, parents, decrypt_key and compat only");
    }
  }
  if (out.confirm && !out.stream) return fail(ErrorCode::usage, "request", "has 'confirm' without 'stream'", "a file needs none: it is there or it is not");
  if (out.path.empty()) return fail(ErrorCode::usage, "request", "names no path", R"(send {"path": "/srv/a.stasis"})");
  for (const auto& [name, field] : kSaveTexts)
    if (field != &SaveRequest::compat) STASIS_TRY(make_absolute(out.*field, name, cwd));
  for (std::string& parent : out.parents) STASIS_TRY(make_absolute(parent, "parents", cwd));
  return out;
}

std::string confirmation_to_json(const std::string& path) { return text_of({{"path", path}}); }

Result<std::string> confirmed_path_from(const std::string& text) {
  STASIS_TRY_SET(const Json json, parse(text, "request"));
  if (json.size() != 1 || !json.contains("path") || !is_path(json["path"]))
    return fail(ErrorCode::usage, "request", "does not name the stream alone", R"(send {"path": "/run/fifo"}, the save's own)");
  return json["path"].get<std::string>();
}

}  // namespace stasis::control
