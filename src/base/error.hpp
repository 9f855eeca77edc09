// Errors as values: what went wrong, with which object, and what to do next.
#pragma once

#include <expected>
#include <string>
#include <string_view>

namespace stasis {

// A machine-readable class of error; the name is what the control protocol sends as "code".
enum class ErrorCode {
  usage,         // the request itself is wrong: unknown option, value out of range
  not_found,     // no such machine, file, field
  exists,        // a name or file is already taken
  busy,          // another operation holds the object
  bad_file,      // a file is damaged, incomplete or not ours
  unsupported,   // ours, but not for this version, engine or host
  host,          // the host refused: system call, disk, memory
  state,         // the object is not in a state that allows it
  cancelled,     // somebody asked to stop
  permission,    // the caller may not
};
std::string_view name_of(ErrorCode code);

// Every message names the object, the field, the value found, the value allowed; `hint` says what to do.
struct [[nodiscard]] Error {
  ErrorCode code = ErrorCode::host;
  std::string object;   // `acpi.pm_timer`, `snapshot /srv/a.stasis`, `machine web1`
  std::string message;  // one sentence, no full stop
  std::string hint;     // one sentence, or empty

  std::string text() const;  // "object: message; hint"
};

template <class T = void>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(ErrorCode code, std::string object, std::string message, std::string hint = {}) {
  return std::unexpected(Error{code, std::move(object), std::move(message), std::move(hint)});
}
// The host's refusal in words: "object: what: No space left on device". `errno_value` is errno at the call.
std::unexpected<Error> fail_errno(std::string object, std::string_view what, int errno_value, std::string hint = {});

// Programmer errors: stays on in release builds, prints and aborts.
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace stasis

#define STASIS_ASSERT(expression) \
  ((expression) ? static_cast<void>(0) : ::stasis::assertion_failed(#expression, __FILE__, __LINE__))

// STASIS_TRY(call): returns the error of a Result from the calling function, or goes on.
#define STASIS_TRY(call)                                                   \
  do {                                                                     \
    if (auto stasis_try_ = (call); !stasis_try_)                           \
      return std::unexpected(std::move(stasis_try_).error());              \
  } while (false)
// STASIS_TRY_SET(declaration, call): the same, and the value goes into `declaration`.
#define STASIS_TRY_JOIN2(a, b) a##b
#define STASIS_TRY_JOIN(a, b) STASIS_TRY_JOIN2(a, b)
#define STASIS_TRY_SET(declaration, call)                                                      \
  auto STASIS_TRY_JOIN(stasis_try_, __LINE__) = (call);                                        \
  if (!STASIS_TRY_JOIN(stasis_try_, __LINE__))                                                 \
    return std::unexpected(std::move(STASIS_TRY_JOIN(stasis_try_, __LINE__)).error());         \
  declaration = std::move(*STASIS_TRY_JOIN(stasis_try_, __LINE__))
