// The log: notices for people, on standard error, never part of a result.
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <string_view>
#include <utility>

namespace stasis::log {

enum class Level { debug, info, warning, error };
void set_level(Level lowest);  // default: warning
bool enabled(Level level);
void write(Level level, std::string_view text);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::debug)) write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::info)) write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::warning)) write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

// A guest's mistake is told once per site and object: a member of the device that tells it.
class Once {
 public:
  template <class... Args>
  void notice(fmt::format_string<Args...> format, Args&&... args) {
    if (!told_.exchange(true, std::memory_order_relaxed)) info(format, std::forward<Args>(args)...);
  }

 private:
  std::atomic<bool> told_{false};
};

}  // namespace stasis::log
