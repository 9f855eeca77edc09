// `--config FILE.toml`: the long options of `stasis run` from a file.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "base/types.hpp"

namespace stasis {

// Every key is a long option without its dashes; what the file does not name stays empty. Paths are joined with the
// folder of the config file already.
struct ConfigFile {
  std::optional<std::string> name;
  std::optional<std::string> kernel;
  std::optional<std::string> initrd;
  std::optional<std::string> cmdline;
  std::optional<u64> memory;                // bytes; "512M" or an integer in the file
  std::optional<u32> cpus;
  std::optional<std::string> cpu;           // x86-64-v2, x86-64-v3, host
  std::optional<u64> tsc;                   // Hz
  std::optional<std::string> engine;        // auto, soft, kvm
  std::optional<std::string> console;       // stdio, none, file:PATH, unix:PATH
  std::optional<std::string> rtc;           // now, or seconds since 1970
  std::optional<std::string> pace;          // host, fast
  std::optional<std::string> debugcon;      // as console; `true` in the file: empty text
  std::optional<bool> debug_exit;
  std::optional<bool> no_reboot;
  std::optional<bool> detach;
  std::optional<bool> paused;
  std::optional<u64> stop_at;               // instructions
  std::optional<std::string> suspend_to;
};

// Errors name FILE:LINE, the key, what was found and what is allowed.
Result<ConfigFile> read_config_file(const std::string& path);
// The same from a text already read; `path` only names it and gives the folder of relative paths.
Result<ConfigFile> parse_config_file(std::string_view text, const std::string& path);

}  // namespace stasis
