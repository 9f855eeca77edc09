// stasis run: a new machine, from power-on.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <charconv>
#include <memory>

#include "base/size.hpp"
#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/machine_options.hpp"
#include "cli/output.hpp"
#include "host/host_clock.hpp"
#include "machine/config_file.hpp"

namespace stasis::cli {
namespace {

constexpr u64 kMostKernel = 512 * kMiB, kMostInitrd = 4 * kGiB;
constexpr std::size_t kLongestCmdline = 4095;

struct RunOptions {
  MachineOptions machine;
  std::string config;
  std::optional<std::string> kernel, initrd, cmdline, memory, cpu, tsc, rtc;
  std::optional<u32> cpus;
  bool debug_exit = false;
};

// What the file says and the command line does not.
Result<> take_config_file(RunOptions& options) {
  if (options.config.empty()) return {};
  STASIS_TRY_SET(ConfigFile file, read_config_file(options.config));
  const auto take = [](auto& mine, auto& theirs) {
    if (!mine && theirs) mine = std::move(*theirs);
  };
  MachineOptions& machine = options.machine;
  take(machine.name, file.name);
  take(options.kernel, file.kernel);
  take(options.initrd, file.initrd);
  take(options.cmdline, file.cmdline);
  if (!options.memory && file.memory) options.memory = std::to_string(*file.memory);
  take(options.cpus, file.cpus);
  take(options.cpu, file.cpu);
  if (!options.tsc && file.tsc) options.tsc = std::to_string(*file.tsc);
  take(machine.engine, file.engine);
  take(machine.console, file.console);
  take(options.rtc, file.rtc);
  take(machine.pace, file.pace);
  if (file.debugcon && file.debugcon->empty()) file.debugcon = "stdio";  // `debugcon = true`
  take(machine.debugcon, file.debugcon);
  take(machine.stop_at, file.stop_at);
  take(machine.suspend_to, file.suspend_to);
  options.debug_exit |= file.debug_exit.value_or(false);
  machine.no_reboot |= file.no_reboot.value_or(false);
  machine.detach |= file.detach.value_or(false);
  machine.paused |= file.paused.value_or(false);
  return {};
}

Result<u64> tsc_rate(const std::string& text) {
  constexpr u64 kLeast = 1'000'000, kMost = 100'000'000'000;
  u64 hz = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), hz);
  if (error != std::errc() || end != text.data() + text.size() || hz < kLeast || hz > kMost)
    return fail(ErrorCode::usage, "--tsc", fmt::format("'{}' is no rate", text), fmt::format("give {} to {}, in Hz", kLeast, kMost));
  return hz;
}

Result<u64> start_time(const std::string& text) {
  if (text == "now") return host::wall_clock_seconds();
  u64 seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size())
    return fail(ErrorCode::usage, "--rtc", fmt::format("'{}' is no time", text), "write now, or seconds since 1970-01-01 UTC");
  return seconds;
}

Result<MachineConfig> machine_config(const RunOptions& options) {
  MachineConfig config;
  if (options.memory) {
    STASIS_TRY_SET(config.memory_bytes, parse_size(*options.memory, "--memory"));
  }
  if (config.memory_bytes < kMiB || config.memory_bytes > 1024 * kGiB || config.memory_bytes % kPageSize != 0)
    return fail(ErrorCode::usage, "--memory", fmt::format("{} is not possible", human_bytes(config.memory_bytes)),
                "give 1M to 1024G, in whole pages of 4K");
  config.cpus = options.cpus.value_or(1);
  if (config.cpus == 0) return fail(ErrorCode::usage, "--cpus", "0 is not possible", "give 1");
  if (config.cpus > 16) return fail(ErrorCode::usage, "--cpus", fmt::format("{} is not possible", config.cpus), "give 1 to 16");
  config.debug_console = options.machine.debugcon.value_or("none") != "none";
  config.debug_exit = options.debug_exit;
  STASIS_TRY_SET(config.start_time, start_time(options.rtc.value_or("now")));
  return config;
}

Result<std::vector<u8>> read_image(const std::string& path, u64 most) {
  STASIS_TRY_SET(const std::string text, read_whole_file(path, most));
  return std::vector<u8>(text.begin(), text.end());
}

Result<BootImages> boot_images(const RunOptions& options) {
  if (!options.kernel)
    return fail(ErrorCode::usage, "--kernel", "is missing", "name a bzImage or an ELF vmlinux");
  BootImages images;
  images.cmdline = options.cmdline.value_or("");
  if (images.cmdline.size() > kLongestCmdline)
    return fail(ErrorCode::usage, "--cmdline", fmt::format("is {} bytes long, and at most {} are allowed", images.cmdline.size(),
                kLongestCmdline), "shorten it");
  STASIS_TRY_SET(images.kernel, read_image(*options.kernel, kMostKernel));
  if (options.initrd && !options.initrd->empty()) {
    STASIS_TRY_SET(images.initrd, read_image(*options.initrd, kMostInitrd));
  }
  return images;
}

Result<int> run(RunOptions& options) {
  STASIS_TRY(take_config_file(options));
  STASIS_TRY_SET(EngineOptions engine, engine_options(options.machine));
  engine.cpu = options.cpu.value_or(engine.cpu);
  if (options.tsc) {
    STASIS_TRY_SET(engine.tsc_hz, tsc_rate(*options.tsc));
  }
  STASIS_TRY_SET(const SessionOptions session, session_options(options.machine, false));
  STASIS_TRY_SET(const MachineConfig config, machine_config(options));
  if (options.kernel) options.kernel = absolute_path(*options.kernel);
  return run_session(session, [&](const MachineSinks& sinks) -> Result<std::unique_ptr<Machine>> {
    STASIS_TRY_SET(BootImages images, boot_images(options));
    auto machine = Machine::boot(config, std::move(images), sinks, engine);
    if (!machine && machine.error().object.starts_with("kernel")) machine.error().object += " " + *options.kernel;
    return machine;
  });
}

}  // namespace

void add_run(CLI::App& app, int& status) {
  auto* command = app.add_subcommand("run", "Boot a new machine");
  const auto options = std::make_shared<RunOptions>();
  command->add_option("--kernel", options->kernel, "Linux: a bzImage or an ELF vmlinux")->option_text("FILE");
  command->add_option("--initrd", options->initrd, "Its initial RAM disk")->option_text("FILE");
  command->add_option("--cmdline", options->cmdline, "Its command line")->option_text("WORDS");
  command->add_option("--memory", options->memory, "Size of RAM: 512M, 6G [512M]")->option_text("SIZE");
  command->add_option("--cpus", options->cpus, "Number of processors, 1 to 16 [1]; the soft engine runs 1")->option_text("N");
  command->add_option("--cpu", options->cpu, "What the guest sees: x86-64-v2, x86-64-v3, or host, which cannot move to another [x86-64-v2]")->option_text("MODEL");
  command->add_option("--tsc", options->tsc, "Rate of the time stamp counter in Hz [kvm: the host's; soft: 1000000000]")->option_text("HZ");
  command->add_option("--rtc", options->rtc, "What the clock shows at power-on: now, or seconds since 1970 [now]")->option_text("now|SECONDS");
  command->add_flag("--debug-exit", options->debug_exit, "A dword V to port 0xF4 ends the run with status (V << 1) | 1");
  command->add_option("--config", options->config, "Take what is not given here from this TOML file")->option_text("FILE");
  add_machine_options(*command, options->machine);
  command->footer(
      "Exit status: 0 powered off, 2 usage, 4 suspended, 6 stopped, 8 rebooted (--no-reboot), 10 crashed, 12 our error;\n"
      "odd: --debug-exit. On a terminal Ctrl-] stops the machine; all other keys are the guest's.\n"
      "Examples:\n"
      "  stasis run --kernel vmlinuz --initrd initrd.img --cmdline 'console=ttyS0'\n"
      "  stasis run --name web --kernel vmlinuz --memory 2G --detach && stasis console web\n"
      "  stasis run --kernel vmlinuz --console none --stop-at 1000000 --suspend-to early.stasis");
  command->callback([options, &status] {
    const auto result = run(*options);
    status = result ? *result : refuse_run(result.error(), options->machine.json);
  });
}

}  // namespace stasis::cli
