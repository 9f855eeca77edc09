// The log's one sink: standard error, through spdlog.
#include "base/log.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace stasis::log {
namespace {

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::debug: return spdlog::level::debug;
    case Level::info: return spdlog::level::info;
    case Level::warning: return spdlog::level::warn;
    case Level::error: return spdlog::level::err;
  }
  return spdlog::level::err;
}

spdlog::logger& logger() {
  static const auto one = [] {
    auto made = std::make_shared<spdlog::logger>("stasis", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("stasis: %^%l%$: %v");
    made->set_level(spdlog::level::warn);
    return made;
  }();
  return *one;
}

}  // namespace

void set_level(Level lowest) { logger().set_level(to_spdlog(lowest)); }
bool enabled(Level level) { return logger().should_log(to_spdlog(level)); }
void write(Level level, std::string_view text) { logger().log(to_spdlog(level), "{}", text); }

}  // namespace stasis::log
