// Error texts, and what a failed assertion says.
#include "base/error.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/text.hpp"

namespace stasis {

std::string_view name_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::usage: return "usage";
    case ErrorCode::not_found: return "not_found";
    case ErrorCode::exists: return "exists";
    case ErrorCode::busy: return "busy";
    case ErrorCode::bad_file: return "bad_file";
    case ErrorCode::unsupported: return "unsupported";
    case ErrorCode::host: return "host";
    case ErrorCode::state: return "state";
    case ErrorCode::cancelled: return "cancelled";
    case ErrorCode::permission: return "permission";
  }
  return "unknown";
}

std::string Error::text() const {
  std::string out = object.empty() ? message : fmt::format("{}: {}", object, message);
  if (!hint.empty()) out += "; " + hint;
  return printable(out);  // parts of it may come from a hostile file
}

std::unexpected<Error> fail_errno(std::string object, std::string_view what, int errno_value, std::string hint) {
  return fail(ErrorCode::host, std::move(object), fmt::format("{}: {}", what, std::strerror(errno_value)), std::move(hint));
}

void assertion_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "stasis: internal error: %s does not hold (%s:%d); please report this with the command you ran\n",
               expression, file, line);
  std::abort();
}

}  // namespace stasis
