// Every record kind of a machine is locked, has a golden record of each of its versions, and stands in the table of releases.
#include <gtest/gtest.h>

#include <contract.hpp>  // of tests/support
#include "base/version.hpp"
#include "kinds.hpp"
#include "machine/releases.hpp"

using namespace stasis;
namespace {

using contract::golden_folder;
using contract::read_text;

// "kind vN …" lines to kinds and versions.
std::map<std::string, unsigned> kinds_in(const std::string& text) {
  std::map<std::string, unsigned> out;
  std::istringstream lines(text);
  std::string kind, version, rest;
  while (lines >> kind >> version && std::getline(lines, rest)) out[kind] = static_cast<unsigned>(std::stoul(version.substr(1)));
  return out;
}

TEST(Kinds, schema_is_locked) {
  const schema::Kinds kinds;
  std::map<std::string, unsigned> now;
  for (const schema::Kind& kind : kinds.all()) {
    contract::schema_is_locked(kind.schema);
    now[kind.schema.kind] = kind.schema.version;
  }
  EXPECT_EQ(kinds_in(read_text(golden_folder() / "schema.lock")), now) << "a kind that was saved once must stay";
}

// Loaded for ever, and the present version saved again to the same bytes.
TEST(Kinds, golden_versions_load) {
  const schema::Kinds kinds;
  for (const schema::Kind& kind : kinds.all()) {
    if (const auto path = contract::golden_record(kind.schema.kind, kind.schema.version); contract::updating() && !std::filesystem::exists(path))
      contract::write_text(path, contract::text_of(cbor::encode(kind.sample)));
    for (unsigned version = 1; version <= kind.schema.version; ++version) {
      const auto path = contract::golden_record(kind.schema.kind, version);
      const std::string text = read_text(path);
      ASSERT_FALSE(text.empty()) << path << " is missing";
      const auto value = cbor::decode(contract::bytes_in(text), path);
      ASSERT_TRUE(value) << value.error().text();
      state::Problems problems;
      const auto again = kind.load_and_save(*value, {.object = path, .version = static_cast<u16>(version), .problems = problems});
      ASSERT_TRUE(again) << (problems.empty() ? "" : problems.front().text());
      if (version == kind.schema.version) {
        EXPECT_EQ(contract::text_of(cbor::encode(*again)), text) << path;
      }
    }
  }
}

// No file there is of a kind or version that nobody loads.
TEST(Kinds, golden_records_are_all_used) {
  const auto known = kinds_in(read_text(golden_folder() / "schema.lock"));
  for (const auto& entry : std::filesystem::directory_iterator(golden_folder() / "records")) {
    const std::string name = entry.path().stem().string();  // "acpi.pm.v1"
    const std::size_t at = name.rfind(".v");
    const auto kind = known.find(name.substr(0, at));
    ASSERT_NE(kind, known.end()) << entry.path();
    EXPECT_LE(std::stoul(name.substr(at + 2)), kind->second) << entry.path();
  }
}

// What a record says of itself in a file is what its own value holds.
TEST(Kinds, samples_fit_their_schemas) {
  const schema::Kinds kinds;
  for (const schema::Kind& kind : kinds.all())
    for (const state::FieldSchema& field : kind.schema.fields) {
      const cbor::Value* held = kind.sample.as<cbor::Map>()->find(field.name);
      ASSERT_NE(held, nullptr) << kind.schema.kind << " " << field.name;
      EXPECT_TRUE(state::fits(*held, field)) << kind.schema.kind << " " << field.name;
      EXPECT_TRUE(!field.default_value || state::fits(*field.default_value, field)) << kind.schema.kind << " " << field.name;
    }
}

// Every kind can be written as each of its versions where nothing was put into its younger fields, and that loads.
TEST(Kinds, golden_records_can_be_written_as_they_were) {
  const schema::Kinds kinds;
  for (const schema::Kind& kind : kinds.all())
    for (u16 version = 1; version < kind.schema.version; ++version) {
      const std::string text = read_text(contract::golden_record(kind.schema.kind, version));
      state::Problems problems;
      const auto loaded = kind.load_and_save(*cbor::decode(contract::bytes_in(text), "x"), {.object = "x", .version = version, .problems = problems});
      ASSERT_TRUE(loaded);
      const auto written = state::write_for(kind.schema, *loaded, version, kind.schema.kind, problems);
      ASSERT_TRUE(written) << problems.front().text();
      EXPECT_EQ(contract::text_of(cbor::encode(written->value)), text) << kind.schema.kind << " " << version;
    }
}

TEST(Kinds, what_an_older_vcpu_record_cannot_hold_is_named) {
  VcpuState vcpu;
  vcpu.xsave.pkru = 5;
  vcpu.pending.payload = 0x7000;
  state::Problems problems;
  EXPECT_FALSE(state::save_for(vcpu, 1, "cpu/0", problems));
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_EQ(problems[0].text().find("cpu/0: x86.vcpu field pending/payload (since version 2) is 0x7000, an older Stasis would lose it (it assumes 0)"), 0u) << problems[0].text();
  EXPECT_EQ(problems[1].text().find("cpu/0: x86.vcpu field xsave/pkru (since version 2) is 0x5, an older Stasis would lose it (it assumes 0)"), 0u) << problems[1].text();
}

// ---- releases -----------------------------------------------------------------------------------------------------

std::map<std::string, unsigned> kinds_of(const state::Release& release) {
  std::map<std::string, unsigned> out;
  for (const state::KindVersion& kind : release.kinds) out.emplace(kind.kind, kind.version);
  return out;
}

bool is_out(std::string_view release) {
  const auto number = [](std::string_view text) { return std::pair(std::stoul(std::string(text)), std::stoul(std::string(text.substr(text.find('.') + 1)))); };
  return number(version()) >= number(release);
}

void write_release(const std::string& name, const std::map<std::string, unsigned>& kinds) {
  std::string rows = "// The record kinds of Stasis " + name + " and their versions.\n", text;
  for (const auto& [kind, version] : kinds) {
    rows += "{\"" + kind + "\", " + std::to_string(version) + "},\n";
    text += kind + " v" + std::to_string(version) + "\n";
  }
  contract::write_text(golden_folder().parent_path().parent_path() / "src/machine/releases" / (name + ".inc"), rows);
  contract::write_text(golden_folder() / "releases" / name, text);
}

// Until a release is out, its row is what the layouts are now; then it never changes again.
TEST(Releases, releases_are_what_they_were) {
  const auto now = kinds_in(read_text(golden_folder() / "schema.lock"));
  for (const state::Release& release : releases()) {
    const std::string name(release.name);
    if (contract::updating() && !is_out(name)) write_release(name, now);
    std::istringstream lines(read_text(golden_folder() / "releases" / name));
    std::map<std::string, unsigned> golden;
    for (std::string kind, version; lines >> kind >> version;) golden[kind] = static_cast<unsigned>(std::stoul(version.substr(1)));
    if (contract::updating()) continue;  // the table was compiled before
    EXPECT_EQ(kinds_of(release), golden) << "src/machine/releases/" << name << ".inc differs from tests/golden/releases/" << name;
    EXPECT_TRUE(is_out(name) || golden == now) << name << " is not out yet: `./dev golden` writes its row again";
    for (const auto& [kind, version] : golden) {
      ASSERT_TRUE(now.contains(kind)) << kind << " of release " << name << " is gone";
      EXPECT_GE(now.at(kind), version) << kind;
    }
  }
}

TEST(Releases, are_found_by_name) {
  const auto first = release_named("1.0");
  ASSERT_TRUE(first);
  EXPECT_TRUE((*first)->version_of("x86.vcpu"));
  EXPECT_FALSE((*first)->version_of("x86.nothing"));
  const auto none = release_named("0.9");
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().text().find("'0.9' is no release of Stasis, known are: 1.0"), std::string::npos) << none.error().text();
}

// What a machine holds now can be written for every release that is not older than its layouts.
TEST(Releases, every_kind_can_be_written_for_the_newest) {
  const schema::Kinds kinds;
  for (const schema::Kind& kind : kinds.all()) {
    state::Problems problems;
    const auto out = state::write_for_release(releases().back(), "x", kind.schema, kind.sample, problems);
    if (is_out(releases().back().name)) continue;
    ASSERT_EQ(out.outcome, state::ForRelease::written) << kind.schema.kind;
    EXPECT_EQ(out.record.value, kind.sample);
  }
}

}  // namespace
