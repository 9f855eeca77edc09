// stasis snapshot verify: everything that is wrong with a snapshot, and where it could be resumed.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <memory>

#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "cli/rewriting.hpp"
#include "machine/resume_check.hpp"
#include "snapshot/verify.hpp"

namespace stasis::cli {
namespace {

using Json = nlohmann::ordered_json;
using state::Problems;

constexpr int kNotVerified = 3;  // there is no verdict

struct Options {
  InputOptions input;
  std::string file;
};

struct Verdict {
  snapshot::Verification found;
  Problems problems;
  ResumeCheck resume;
  bool resume_known = false;
};

// One thing is told once, whoever found it.
void add_new(Problems& to, const Problems& from) {
  for (const Error& problem : from)
    if (std::ranges::none_of(to, [&](const Error& known) { return known.object == problem.object && known.message == problem.message; })) to.push_back(problem);
}

Json json_of(const Problems& problems) {
  Json out = Json::array();
  for (const Error& problem : problems)
    out.push_back({{"code", name_of(problem.code)}, {"object", problem.object}, {"message", problem.message}, {"hint", problem.hint}});
  return out;
}

Json json_of(const Verdict& verdict) {
  const auto& snapshot = verdict.found.file.snapshot;
  Json out{{"file", snapshot.path}, {"whole", verdict.problems.empty()}};
  out["digest"] = verdict.found.digest.empty() ? Json() : Json(verdict.found.digest);
  out["problems"] = json_of(verdict.problems);
  out["unchecked"] = verdict.found.unchecked;
  out["parents"] = Json::array();
  for (const auto* at = snapshot.parent.get(); at; at = at->parent.get()) out["parents"].push_back(at->path);
  if (!verdict.resume_known) return out["resume"] = nullptr, out;
  out["resume"] = {{"unsupported", json_of(verdict.resume.unsupported)}, {"engines", Json::array()}};
  for (const EngineVerdict& engine : verdict.resume.engines)
    out["resume"]["engines"].push_back({{"engine", engine.engine}, {"can", engine.can() && verdict.resume.unsupported.empty()},
                                        {"not_here", engine.not_here}, {"problems", json_of(engine.problems)}});
  return out;
}

std::string text_of(const Verdict& verdict) {
  const auto& snapshot = verdict.found.file.snapshot;
  const auto count = verdict.problems.size();
  std::string out = fmt::format("{}: {}\n", snapshot.path, count ? fmt::format("{} problem{}", count, count == 1 ? "" : "s")
                                                                 : verdict.found.unchecked.empty() ? "whole" : "whole, as far as it could be checked");
  for (const Error& problem : verdict.problems)
    out += problem.object == snapshot.path ? fmt::format("  {}\n", problem.message) : fmt::format("  {}: {}\n", problem.object, problem.message);
  for (const std::string& unchecked : verdict.found.unchecked) out += fmt::format("  not checked: {}\n", unchecked);
  for (const auto* at = snapshot.parent.get(); at; at = at->parent.get()) out += fmt::format("  {:14} {}\n", "parent", at->path);
  if (!verdict.found.digest.empty()) out += fmt::format("  {:14} {}\n", "content digest", verdict.found.digest);
  if (!verdict.resume_known) return out;
  for (const Error& problem : verdict.resume.unsupported) out += fmt::format("  not here       {}: {}\n", problem.object, problem.message);
  for (const EngineVerdict& engine : verdict.resume.engines) {
    const bool can = engine.can() && verdict.resume.unsupported.empty();
    out += fmt::format("  {:14} {}\n", "with " + engine.engine, can ? (count ? "could be resumed here without these problems" : "can be resumed here") : "cannot be resumed here" + (engine.not_here.empty() ? "" : ": " + engine.not_here));
    for (const Error& problem : engine.problems) out += fmt::format("  {:14}   {}: {}\n", "", problem.object, problem.message);
  }
  return out;
}

Result<Verdict> look(const Options& options) {
  if (options.file == "-") return fail(ErrorCode::usage, "snapshot verify", "needs a file, not a stream", "save the stream to a file first; 'stasis snapshot digest -' checks one");
  STASIS_TRY_SET(const auto progress, Progress::start());
  STASIS_TRY_SET(const auto open, open_options(options.input));
  STASIS_TRY_SET(snapshot::Verification found, snapshot::verify(options.file, open, progress->phase("checking")));
  Verdict out{.found = std::move(found), .problems = {}, .resume = {}};
  add_new(out.problems, out.found.file.problems);
  const auto key = std::ranges::find(out.problems, ErrorCode::usage, &Error::code);
  if (key != out.problems.end()) return std::unexpected(*key);  // another key: nothing of what follows from that is damage
  if (!out.found.file.parts_read) return out;
  out.resume = check_resume(out.found.file.snapshot.image);
  out.resume_known = !out.resume.engines.empty();
  add_new(out.problems, out.resume.damage);
  return out;
}

int verify(const Options& options) {
  const auto verdict = look(options);
  if (!verdict) {
    print_error(verdict.error(), options.input.json);
    return verdict.error().code == ErrorCode::usage ? kUsage : kNotVerified;
  }
  print(options.input.json ? json_of(*verdict).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n" : printable(text_of(*verdict)));
  if (verdict->problems.empty()) return 0;
  const auto count = verdict->problems.size();
  const bool missing = std::ranges::all_of(verdict->problems, [](const Error& problem) { return problem.code == ErrorCode::not_found; });
  print_error({ErrorCode::bad_file, options.file, count == 1 ? "has a problem" : fmt::format("has {} problems", count),
               missing ? verdict->problems.front().hint : "take another copy of it, if there is one"},
              options.input.json);
  return kFailed;
}

}  // namespace

void add_snapshot_verify(CLI::App& group, int& status) {
  auto* command = group.add_subcommand("verify", "Everything that is wrong with a snapshot, and whether it can be resumed here");
  const auto options = std::make_shared<Options>();
  command->add_option("FILE", options->file, "The snapshot")->required();
  add_input_options(*command, options->input);
  command->footer("Reads every byte, of parents too. Exit status: 0 whole, 1 problems, 2 usage, 3 could not be looked at.\n"
                  "A whole snapshot that this host cannot resume is whole: that is listed, and is no problem.\n"
                  "Examples:\n"
                  "  stasis snapshot verify web.stasis\n"
                  "  stasis snapshot verify monday.stasis --parent /srv/parents --json | jq .problems\n"
                  "  stasis snapshot verify secret.stasis                     # without the key: what is stored, for damage");
  command->callback([options, &status] { status = verify(*options); });
}

}  // namespace stasis::cli
