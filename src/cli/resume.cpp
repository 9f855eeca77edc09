// stasis resume: the machine in a file goes on.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/machine_options.hpp"
#include "cli/open_options.hpp"
#include "cli/output.hpp"
#include "control/messages.hpp"
#include "control/runtime_dir.hpp"
#include "machine/resume_check.hpp"

namespace stasis::cli {
namespace {

struct ResumeOptions {
  MachineOptions machine;
  OpenWords open;
  std::string file, verify = "off";
  bool dry_run = false;
};

// Checks RAM while the machine runs. Damage pauses it: what it computed until then may be wrong already.
class BackgroundCheck {
 public:
  ~BackgroundCheck() { end(); }
  void end() {
    ended_ = true;
    if (thread_.joinable()) thread_.join();
  }
  void start(std::shared_ptr<const snapshot::OpenSnapshot> snapshot, Vm& vm, bool json) {
    thread_ = std::thread([this, snapshot, &vm, json] {
      SaveProgress progress{[this](u64, u64) { return !ended_; }};
      const auto checked = snapshot::verify_ram(*snapshot, &progress);
      if (checked || checked.error().code == ErrorCode::cancelled) return;
      Error error = checked.error();
      error.hint = "stop it and resume another copy; 'stasis unpause' goes on at your own risk";
      Error told = error;
      told.message += "; the machine is being paused";
      print_error(told, json);
      if (const auto paused = vm.report(error); !paused) print_error(paused.error(), json);
    });
  }

 private:
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

Result<> check_verify(const std::string& verify) {
  if (verify == "before" || verify == "background" || verify == "off") return {};
  return fail(ErrorCode::usage, "--verify", "'" + verify + "' is not known", "write before, background or off");
}

Result<int> resume(const ResumeOptions& options) {
  STASIS_TRY_SET(SessionOptions session, session_options(options.machine, true));
  STASIS_TRY_SET(const EngineOptions engine, engine_options(options.machine));
  STASIS_TRY(check_verify(options.verify));
  STASIS_TRY_SET(const snapshot::OpenOptions open, open_options(options.open));
  const std::string file = options.file == "-" ? options.file : absolute_path(options.file);
  BackgroundCheck check;
  std::shared_ptr<const snapshot::OpenSnapshot> looked_at;
  if (options.verify == "background" && file == "-")
    return fail(ErrorCode::usage, "--verify", "'background' needs a file, not a stream", "write before, which checks what has arrived, or off");
  if (options.verify == "background") {
    session.started = [&](Vm& vm) {
      if (looked_at) check.start(looked_at, vm, options.machine.json);
    };
    session.ended = [&] { check.end(); };
  }
  return run_session(session, [&](const MachineSinks& sinks) -> Result<std::unique_ptr<Machine>> {
    STASIS_TRY_SET(snapshot::OpenSnapshot saved, open_snapshot(file, open));
    if (options.verify == "before") STASIS_TRY(snapshot::verify_ram(saved));
    if (options.verify == "background") {
      snapshot::OpenOptions again = open;
      again.bulk = false;
      STASIS_TRY_SET(auto opened, snapshot::open(file, again));
      if (opened.root != saved.root) return fail(ErrorCode::busy, file, "was replaced while it was opened", "resume it again");
      looked_at = std::make_shared<const snapshot::OpenSnapshot>(std::move(opened));
    }
    return Machine::restore(std::move(saved), sinks, engine);
  });
}

// What the engine that would be taken says, and whether the other one would take the machine.
void add_verdict(const ResumeCheck& check, const EngineOptions& options, std::vector<Error>& out) {
  const auto chosen = choose_engine(options);
  if (!chosen) return out.push_back(chosen.error());
  const std::string_view name = chosen->kvm ? "kvm" : "soft";
  const auto other = std::ranges::find_if(check.engines, [&](const EngineVerdict& verdict) { return verdict.engine != name && verdict.can(); });
  for (const EngineVerdict& verdict : check.engines) {
    if (verdict.engine != name) continue;
    for (Error problem : verdict.problems) {
      if (other != check.engines.end()) problem.hint = "resume it with --engine " + other->engine;
      out.push_back(std::move(problem));
    }
  }
}

// All that stands in the way, of the command line and of the file; nothing is started, claimed or written.
std::vector<Error> problems_of(const ResumeOptions& options) {
  std::vector<Error> out;
  const auto add = [&](const Error& error) { out.push_back(error); };
  if (const auto session = session_options(options.machine, true); !session) add(session.error());
  if (const auto verify = check_verify(options.verify); !verify) add(verify.error());
  if (options.machine.name && control::check_name(*options.machine.name))
    if (const auto free = control::ClaimedName::check(*options.machine.name); !free) add(free.error());
  const auto engine = engine_options(options.machine);
  if (!engine) add(engine.error());
  auto open = open_options(options.open);
  if (!open) return add(open.error()), out;
  open->bulk = false;
  const std::string file = options.file == "-" ? options.file : absolute_path(options.file);
  auto saved = open_snapshot(file, *open);
  if (!saved && open->ancestors) {  // perhaps it is only the parent that is missing or damaged: then the rest is told too
    add(saved.error());
    open->ancestors = false;
    saved = file == "-" ? std::move(saved) : open_snapshot(file, *open);
    if (!saved) return out;
  }
  if (!saved) return add(saved.error()), out;
  if (const auto kernel = snapshot::check_left_out(*saved); !kernel) add(kernel.error());
  if (!engine) return out;
  const ResumeCheck check = check_resume(saved->image);
  for (const Error& problem : check.damage) add(problem);
  for (const Error& problem : check.unsupported) add(problem);
  add_verdict(check, *engine, out);
  if (options.verify == "before" && saved->parent_link.has_value() == (saved->parent != nullptr))
    if (const auto whole = snapshot::verify_ram(*saved); !whole) add(whole.error());
  return out;
}

int dry_run(const ResumeOptions& options) {
  const std::vector<Error> problems = problems_of(options);
  if (options.machine.json) {
    print(control::to_json(problems));
  } else if (problems.empty()) {
    print(fmt::format("{}: would resume\n", options.file));
  } else {
    for (const Error& problem : problems) print_error(problem, false);
  }
  return problems.empty() ? 0 : run_status_of(problems.front());
}

}  // namespace

void add_resume(CLI::App& app, int& status) {
  auto* command = app.add_subcommand("resume", "Wake the machine in a snapshot; the file is not changed");
  const auto options = std::make_shared<ResumeOptions>();
  command->add_option("FILE", options->file, "The snapshot; it holds the whole machine. -: standard input")->required();
  add_open_options(*command, options->open);
  command->add_option("--verify", options->verify, "Check RAM against its digests: before, in the background, or off [off]")->option_text("before|background|off");
  command->add_flag("--dry-run", options->dry_run, "Start nothing; tell everything that stands in the way, and the option that helps");
  add_machine_options(*command, options->machine);
  command->footer(
      "Exit status: as of 'stasis run'. A console file is continued, not begun anew. With --dry-run: 0 when it would resume.\n"
      "Examples:\n"
      "  stasis resume web.stasis\n"
      "  for i in 1 2 3; do stasis resume web.stasis --name web$i --detach; done\n"
      "  stasis resume monday.stasis --parent /backup/sunday.stasis --decrypt-key web.key\n"
      "  stasis resume web.stasis --dry-run --json\n"
      "  stasis resume web.stasis --console none --stop-at 5000000000 --suspend-to later.stasis");
  command->callback([options, &status] {
    if (options->dry_run) {
      status = dry_run(*options);
      return;
    }
    const auto result = resume(*options);
    status = result ? *result : refuse_run(result.error(), options->machine.json);
  });
}

}  // namespace stasis::cli
