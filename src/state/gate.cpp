// The gate: two texts of layouts compared, field by field.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <span>

#include "state/lock.hpp"

namespace stasis::state {
namespace {

struct Field {
  std::string path, type;
  std::map<std::string, std::vector<std::string>> attributes;  // "was" and "before" may stand twice

  std::string text(const std::string& key) const {
    const auto found = attributes.find(key);
    return found == attributes.end() ? std::string() : found->second.front();
  }
  std::vector<std::string> all(const std::string& key) const {
    const auto found = attributes.find(key);
    return found == attributes.end() ? std::vector<std::string>() : found->second;
  }
};

struct Kind {
  unsigned version = 1, shape = 1;
  bool skippable = false;
  std::vector<Field> fields;
  const Field* find(std::string_view path) const {
    const auto found = std::ranges::find(fields, path, &Field::path);
    return found == fields.end() ? nullptr : &*found;
  }
};

u64 number_in(std::string_view text, u64 otherwise = 0) {
  const int base = text.starts_with("0x") ? 16 : 10;
  if (base == 16) text.remove_prefix(2);
  u64 number = otherwise;
  std::from_chars(text.data(), text.data() + text.size(), number, base);
  return number;
}

// At spaces outside of double quotes, in which a backslash takes the next character as it is.
std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> out(1);
  bool inside = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"') inside = !inside;
    if (line[i] == ' ' && !inside) {
      out.emplace_back();
      continue;
    }
    out.back() += line[i];
    if (line[i] == '\\' && i + 1 < line.size()) out.back() += line[++i];
  }
  return out;
}

std::map<std::string, Kind> parse(std::string_view text) {
  std::map<std::string, Kind> out;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const std::vector<std::string> words = words_of(line);
    if (words.size() < 3 || words[1].empty()) continue;
    Kind& kind = out[words[0]];
    kind.version = static_cast<unsigned>(number_in(std::string_view(words[1]).substr(1), 1));
    if (words[2] == "(shape") kind.shape = static_cast<unsigned>(number_in(words.back(), 1));  // "(shape of version 3)"
    if (words[2] == "(skippable)") kind.skippable = true;
    if (words[2].starts_with('(') || words.size() < 4) continue;
    Field field{.path = words[2], .type = words[3], .attributes = {}};
    for (std::size_t i = 4; i < words.size(); ++i) {
      const std::size_t equals = words[i].find('=');
      field.attributes[words[i].substr(0, equals)].push_back(equals == std::string::npos ? "" : words[i].substr(equals + 1));
    }
    kind.fields.push_back(std::move(field));
  }
  return out;
}

struct Bounds {
  u64 least = 0, most = ~0ull, mask = ~0ull;
  bool operator==(const Bounds&) const = default;
};

Bounds range_of(std::string_view text) {
  const std::size_t dots = text.find("..");
  if (dots == text.npos) return {};
  return {.least = number_in(text.substr(0, dots)), .most = number_in(text.substr(dots + 2), ~0ull)};
}

Bounds bounds_of(const Field& field) {
  Bounds out = range_of(field.text("range"));
  if (const std::string mask = field.text("mask"); !mask.empty()) out.mask = number_in(mask, ~0ull);
  return out;
}

class Comparison {
 public:
  Comparison(const Kind& before, const Kind& after, Verdict& verdict) : before_(before), after_(after), verdict_(verdict) {}

  void run() {
    if (after_.version < before_.version) say(Change::breaks, fmt::format("version {} became {}", before_.version, after_.version));
    if (after_.shape > before_.version)
      return say(Change::safe, fmt::format("has another shape since version {}; golden records of the older ones must load", after_.shape));
    if (after_.shape != before_.shape) say(Change::breaks, "its former shape is forgotten");
    if (after_.skippable != before_.skippable) say(Change::safe, after_.skippable ? "became skippable" : "is no longer skippable");
    for (const Field& field : before_.fields) follow(field);
    for (const Field& field : after_.fields)
      if (!seen_.contains(field.path)) added(field);
    if (verdict_.change == Change::same && after_.version != before_.version)
      say(Change::safe, fmt::format("version {}, its fields are the same", after_.version));
  }

 private:
  void say(Change change, std::string reason) {
    verdict_.change = std::max(verdict_.change, change);
    verdict_.reasons.push_back(std::move(reason));
  }
  bool is_new(u64 version) const { return version > before_.version && version <= after_.version; }

  static std::string parent_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == path.npos ? std::string() : path.substr(0, slash + 1);
  }

  // Where a field is now; its parent was found.
  const Field* now(const Field& old, const std::string& parent, const std::string& name) {
    if (const Field* same = after_.find(parent + name)) return same;
    for (const Field& field : after_.fields) {
      if (parent_of(field.path) != parent) continue;
      for (const std::string& was : field.all("was")) {
        const std::size_t at = was.find('@');
        if (was.substr(0, at) != name) continue;
        const u64 version = number_in(std::string_view(was).substr(at + 1));
        if (is_new(version)) say(Change::safe, fmt::format("field '{}' was renamed to '{}' in version {}", old.path, field.path, version));
        else say(Change::needs_since, fmt::format("field '{}' was renamed to '{}' in version {}, but records of version {} have the old name",
                                                  old.path, field.path, version, before_.version));
        return &field;
      }
    }
    return nullptr;
  }

  void follow(const Field& old) {
    const std::string parent = parent_of(old.path);
    const auto moved = moved_.find(parent);
    if (!parent.empty() && moved == moved_.end()) return;  // told of the parent
    const std::string new_parent = parent.empty() ? "" : moved->second;
    const Field* field = now(old, new_parent, old.path.substr(parent.size()));
    if (!field) return say(Change::breaks, fmt::format("field '{}' was removed, or renamed without renamed_from", old.path));
    moved_[old.path + "/"] = field->path + "/";
    seen_.insert(field->path);
    compare(old, *field);
  }

  void must_stay(const Field& old, const Field& field, const std::string& attribute, std::string_view what) {
    if (old.text(attribute) == field.text(attribute)) return;
    const auto shown = [](const std::string& text, std::string_view none) { return text.empty() ? std::string(none) : text; };
    say(Change::breaks, fmt::format("{} of field '{}' changed from {} to {}", what, old.path, shown(old.text(attribute), "none"),
                                    shown(field.text(attribute), "none")));
  }

  void compare(const Field& old, const Field& field) {
    if (old.type != field.type) say(Change::breaks, fmt::format("field '{}' changed its type from {} to {}", old.path, old.type, field.type));
    must_stay(old, field, "unit", "the unit");
    must_stay(old, field, "since", "the first version");
    must_stay(old, field, "default", "the default");
    if (old.attributes.contains("skippable") != field.attributes.contains("skippable"))
      say(Change::safe, fmt::format("field '{}' {}", old.path, field.attributes.contains("skippable") ? "became skippable" : "is no longer skippable"));
    for (const std::string key : {"was", "before"}) {
      const auto then = old.all(key), later = field.all(key);
      if (then.size() > later.size() || !std::ranges::equal(then, std::span(later).first(then.size())))
        say(Change::breaks, fmt::format("field '{}' forgot its former {}", old.path, key == "was" ? "names" : "ranges"));
    }
    compare_names(old, field);
    compare_bounds(old, field);
  }

  void compare_names(const Field& old, const Field& field) {
    const std::string then = old.text("names"), later = field.text("names");
    if (then == later || (!then.empty() && later.starts_with(then + ","))) return;  // more of them: a wider range
    if (then.empty()) return say(Change::safe, fmt::format("values of field '{}' got names", old.path));
    say(Change::breaks, fmt::format("names of field '{}' changed from {} to {}", old.path, then, later.empty() ? "none" : later));
  }

  void compare_bounds(const Field& old, const Field& field) {
    const Bounds then = bounds_of(old), later = bounds_of(field);
    if (then == later) return;
    if (later.least > then.least || later.most < then.most || (then.mask & ~later.mask) != 0)
      return say(Change::breaks, fmt::format("field '{}' allows less: {}", old.path, difference(then, later)));
    for (const std::string& entry : field.all("before")) {  // "2:0..3:0xff"
      const std::size_t first = entry.find(':'), last = entry.rfind(':');
      Bounds declared = range_of(std::string_view(entry).substr(first + 1, last - first - 1));
      declared.mask = number_in(std::string_view(entry).substr(last + 1), ~0ull);
      if (is_new(number_in(std::string_view(entry).substr(0, first))) && declared == then)
        return say(Change::safe, fmt::format("field '{}' allows more: {}", old.path, difference(then, later)));
    }
    say(Change::needs_since, fmt::format("field '{}' allows more: {}; declare it with widened() and a new version", old.path, difference(then, later)));
  }

  static std::string difference(const Bounds& then, const Bounds& later) {
    if (then.mask != later.mask) return fmt::format("bits {:#x} became {:#x}", then.mask, later.mask);
    return fmt::format("{} to {} became {} to {}", then.least, then.most, later.least, later.most);
  }

  void added(const Field& field) {
    const std::string parent = parent_of(field.path);
    if (!parent.empty() && !seen_.contains(parent.substr(0, parent.size() - 1))) return;  // its parent is new too
    const std::string since = field.text("since");
    const u64 version = since.empty() ? 1 : number_in(since, 1);
    if (is_new(version)) return say(Change::safe, fmt::format("field '{}' was added in version {}", field.path, version));
    say(Change::needs_since, fmt::format("field '{}' was added without since({}){}", field.path, before_.version + 1,
                                         after_.version > before_.version ? "" : " and a new version"));
  }

  const Kind &before_, &after_;
  Verdict& verdict_;
  std::map<std::string, std::string> moved_;  // parents, with a slash at the end
  std::set<std::string> seen_;                // fields of `after` that were there before
};

}  // namespace

std::string Verdict::line() const {
  static constexpr std::string_view kWords[] = {"same", "safe", "needs since", "breaks"};
  return fmt::format("{}: {}: {}", kind, kWords[static_cast<unsigned>(change)], fmt::join(reasons, "; "));
}

std::vector<Verdict> judge(std::string_view before, std::string_view after) {
  const std::map<std::string, Kind> then = parse(before), later = parse(after);
  std::map<std::string, Verdict> verdicts;
  for (const auto& [name, kind] : then) {
    Verdict& verdict = verdicts[name];
    const auto found = later.find(name);
    if (found != later.end()) Comparison(kind, found->second, verdict).run();
    else verdict.change = Change::breaks, verdict.reasons = {"the kind was removed: its records must stay loadable"};
  }
  for (const auto& [name, kind] : later)
    if (!then.contains(name)) verdicts[name] = {.kind = name, .change = Change::safe, .reasons = {fmt::format("a new kind, version {}", kind.version)}};
  std::vector<Verdict> out;
  for (auto& [name, verdict] : verdicts) {
    verdict.kind = name;
    if (verdict.change != Change::same) out.push_back(std::move(verdict));
  }
  return out;
}

}  // namespace stasis::state
