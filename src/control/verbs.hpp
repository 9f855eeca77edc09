// The verbs of the control protocol, each from a request's text to an answer's text; HTTP itself is elsewhere.
#pragma once

#include <string>
#include <string_view>

#include "control/target.hpp"

namespace stasis::control {

struct Request {
  std::string method;  // "PUT"
  std::string path;    // "/v1/machine/pause", without a query
  std::string body;
};

struct Answer {
  int status = 200;
  std::string body;     // JSON
  std::string allow{};  // with 405: the method that is served here
};

inline constexpr std::string_view kConsolePath = "/v1/machine/console";  // GET with Upgrade: stasis-console
inline constexpr std::string_view kConsoleProtocol = "stasis-console";

Answer answer(Target& target, const Request& request);
Answer answer_error(const Error& error);
int http_status(ErrorCode code);

}  // namespace stasis::control
