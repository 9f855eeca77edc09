// One small function per verb, and the table that finds it.
#include "control/verbs.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "base/version.hpp"
#include "control/messages.hpp"

namespace stasis::control {
namespace {

Answer machine_info(Target& target, const Request&) {
  return {200, to_json(MachineReport{target.info(), ::getpid(), std::string(version())})};
}

// Does it, and answers with the machine as it is then.
template <Result<> (Target::*kAction)()>
Answer act(Target& target, const Request& request) {
  if (auto done = (target.*kAction)(); !done) return answer_error(done.error());
  return machine_info(target, request);
}

Answer confirm_save(Target& target, const Request& request) {
  const auto path = confirmed_path_from(request.body);
  if (!path) return answer_error(path.error());
  if (auto done = target.confirm_save(*path); !done) return answer_error(done.error());
  return machine_info(target, request);
}

template <Result<SaveReport> (Target::*kSave)(const SaveRequest&)>
Answer save(Target& target, const Request& request) {
  const auto wanted = save_request_from(request.body);
  if (!wanted) return answer_error(wanted.error());
  const auto saved = (target.*kSave)(*wanted);
  if (!saved) return answer_error(saved.error());
  return {200, to_json(*saved, wanted->path)};
}

Answer digest(Target& target, const Request&) {
  const auto digest = target.digest();
  if (!digest) return answer_error(digest.error());
  return {200, digest_to_json(*digest)};
}

Answer console(Target&, const Request&) {
  return answer_error({ErrorCode::usage, "request", fmt::format("{} is a byte stream, not a document", kConsolePath),
                       fmt::format("send Connection: Upgrade and Upgrade: {}", kConsoleProtocol)});
}

struct Verb {
  std::string_view method, path;
  Answer (*handle)(Target&, const Request&);
};

constexpr Verb kVerbs[] = {
    {"GET", "/v1/machine", machine_info},
    {"PUT", "/v1/machine/pause", act<&Target::pause>},
    {"PUT", "/v1/machine/unpause", act<&Target::unpause>},
    {"PUT", "/v1/machine/powerdown", act<&Target::powerdown>},
    {"PUT", "/v1/machine/reset", act<&Target::reset>},
    {"PUT", "/v1/machine/stop", act<&Target::stop>},
    {"PUT", "/v1/machine/checkpoint", save<&Target::checkpoint>},
    {"PUT", "/v1/machine/suspend", save<&Target::suspend>},
    {"PUT", "/v1/machine/save", confirm_save},
    {"DELETE", "/v1/machine/save", act<&Target::cancel_save>},
    {"GET", "/v1/machine/digest", digest},
    {"GET", kConsolePath, console},
};

}  // namespace

int http_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::usage: return 400;
    case ErrorCode::permission: return 403;
    case ErrorCode::not_found: return 404;
    case ErrorCode::exists:
    case ErrorCode::busy:
    case ErrorCode::state:
    case ErrorCode::cancelled: return 409;
    case ErrorCode::bad_file: return 422;
    case ErrorCode::host: return 500;
    case ErrorCode::unsupported: return 501;
  }
  return 500;
}

Answer answer_error(const Error& error) { return {http_status(error.code), to_json(error)}; }

Answer answer(Target& target, const Request& request) {
  const Verb* other_method = nullptr;
  for (const Verb& verb : kVerbs) {
    if (verb.path != request.path) continue;
    if (verb.method == request.method) return verb.handle(target, request);
    other_method = &verb;
  }
  if (other_method) {
    Answer refused = answer_error({ErrorCode::usage, "request", fmt::format("{} does not take {}", request.path, request.method),
                                   fmt::format("use {}", other_method->method)});
    refused.status = 405;
    refused.allow = other_method->method;
    return refused;
  }
  return answer_error({ErrorCode::not_found, "request", fmt::format("there is no {}", request.path),
                       "the verbs are in docs/control.yaml; all begin with /v1/machine"});
}

}  // namespace stasis::control
