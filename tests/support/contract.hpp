// The contract that every stateful part keeps, as tests from one line:
//
//   DEVICE_CONTRACT(PmTimer, Rig, poke)
//
// Rig: default-constructible, a whole machine for one device, with
//   Clock clock;                          the guest clock
//   state::Part& part();                  the part under test
//   std::vector<u64> lines() const;       every level and message that the outside sees
// poke(Rig&, std::mt19937_64&) -> u64: one random access or time step; returns what the guest would have seen.
//
// STASIS_UPDATE_GOLDEN=1 writes the schema lock, if existing files stay loadable, and a missing golden record of the
// current version. STASIS_UPDATE_GOLDEN=anyway: for a layout that no release has.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "bus/clock.hpp"
#include "state/lock.hpp"
#include "state/part.hpp"

namespace stasis::contract {

inline std::filesystem::path golden_folder() { return std::filesystem::path(STASIS_SOURCE_DIR) / "tests" / "golden"; }
inline std::string_view update_wish() {
  const char* wish = std::getenv("STASIS_UPDATE_GOLDEN");
  return wish ? wish : "";
}
inline bool updating() { return !update_wish().empty(); }

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

// A record as it would come from a file: encoded, decoded, staged, committed, settled.
template <class Rig>
Result<> restore_bytes(Rig& rig, Bytes bytes, u16 version, u64 now) {
  auto value = cbor::decode(bytes, "contract");
  if (!value) return std::unexpected(value.error());
  rig.clock.restore(now);
  return state::restore_one(rig.part(), "contract", *value, version);
}

template <class Rig>
cbor::ByteString bytes_of(Rig& rig) {
  return cbor::encode(rig.part().capture());
}

// The twin: restored at a random moment, then driven in lockstep by the same accesses and time steps.
template <class Rig, class Poke>
void twin_in_lockstep(Poke poke, unsigned rounds = 60, unsigned steps = 200) {
  for (unsigned round = 0; round < rounds; ++round) {
    Rig original;
    std::mt19937_64 random(round);
    const unsigned before = static_cast<unsigned>(random() % steps);
    for (unsigned i = 0; i < before; ++i) poke(original, random);
    const u16 version = original.part().schema().version;
    const cbor::ByteString saved = bytes_of(original);
    ASSERT_EQ(saved, bytes_of(original)) << "saving changed the state";

    Rig twin;
    const auto restored = restore_bytes(twin, saved, version, original.clock.now());
    ASSERT_TRUE(restored) << restored.error().text();
    ASSERT_EQ(bytes_of(twin), saved) << "save, load, save differs in round " << round;
    ASSERT_EQ(twin.lines(), original.lines()) << "levels after the restore, round " << round;
    ASSERT_EQ(twin.clock.next_alarm(), original.clock.next_alarm()) << "alarms after the restore, round " << round;

    std::mt19937_64 random_twin = random;
    for (unsigned i = 0; i < steps; ++i) {
      const u64 seen = poke(original, random), seen_twin = poke(twin, random_twin);
      ASSERT_EQ(seen, seen_twin) << "value read, round " << round << " step " << i;
      ASSERT_EQ(original.lines(), twin.lines()) << "levels, round " << round << " step " << i;
    }
    ASSERT_EQ(bytes_of(original), bytes_of(twin)) << "state at the end of round " << round;
  }
}

template <class Rig, class Poke>
void reset_equals_fresh(Poke poke) {
  Rig used, fresh;
  std::mt19937_64 random(7);
  for (unsigned i = 0; i < 300; ++i) poke(used, random);
  used.part().reset();
  Rig late;  // a part may remember when it was switched on
  late.clock.advance_to(used.clock.now());
  late.part().reset();
  ASSERT_EQ(bytes_of(used), bytes_of(late));
  fresh.part().reset();
  Rig untouched;
  ASSERT_EQ(bytes_of(fresh), bytes_of(untouched)) << "a new part is not in its reset state";
}

template <class Rig, class Poke>
void damage_is_refused_or_harmless(Poke poke) {
  Rig source;
  std::mt19937_64 random(11);
  for (unsigned i = 0; i < 150; ++i) poke(source, random);
  const cbor::ByteString good = bytes_of(source);
  const u16 version = source.part().schema().version;
  const u64 now = source.clock.now();
  Rig target;
  for (std::size_t length = 0; length < good.size(); ++length)
    ASSERT_FALSE(restore_bytes(target, Bytes(good).first(length), version, now)) << "truncated to " << length;
  const std::size_t step = good.size() > 3000 ? good.size() / 3000 : 1;
  for (std::size_t at = 0; at < good.size(); at += step)
    for (unsigned bit = 0; bit < 8; ++bit) {
      cbor::ByteString bad = good;
      bad[at] ^= static_cast<u8>(1u << bit);
      const cbor::ByteString before = bytes_of(target);
      if (restore_bytes(target, bad, version, now)) ASSERT_EQ(bytes_of(target), bad) << "byte " << at << " bit " << bit;
      else ASSERT_EQ(bytes_of(target), before) << "a refused record left a trace, byte " << at;
    }
}

inline void schema_is_locked(const state::Schema& schema) {
  const std::filesystem::path path = golden_folder() / "schema.lock";
  const std::string wanted = state::lock_text(schema);
  const std::string prefix = schema.kind + " ";
  std::string ours, others;
  std::istringstream lines(read_text(path));
  for (std::string line; std::getline(lines, line);) (line.starts_with(prefix) ? ours : others) += line + "\n";
  const auto verdicts = state::judge(ours, wanted);
  const std::string answer = verdicts.empty() ? schema.kind + ": same, in another order" : verdicts.front().line();
  const bool may_write = verdicts.empty() || verdicts.front().change <= state::Change::safe || update_wish() == "anyway";
  if (updating() && ours != wanted && may_write) {
    std::vector<std::string> blocks;  // sorted by kind, fields in order
    std::istringstream all(others + wanted);
    for (std::string line; std::getline(all, line);) blocks.push_back(line);
    std::ranges::stable_sort(blocks, {}, [](const std::string& line) { return line.substr(0, line.find(' ')); });
    std::ofstream out(path, std::ios::binary);
    for (const std::string& line : blocks) out << line << "\n";
    return;
  }
  ASSERT_EQ(ours, wanted) << answer << "\n(the layout differs from tests/golden/schema.lock: docs/decisions/0009-compatible-records.md; "
                          << "`./dev schema` prints this answer for every kind, `./dev golden` writes what is safe)";
}

inline std::filesystem::path golden_record(std::string_view kind, unsigned version) {
  return golden_folder() / "records" / (std::string(kind) + ".v" + std::to_string(version) + ".cbor");
}
inline void write_text(const std::filesystem::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
}
inline Bytes bytes_in(const std::string& text) { return {reinterpret_cast<const u8*>(text.data()), text.size()}; }
inline std::string text_of(const cbor::ByteString& bytes) { return {bytes.begin(), bytes.end()}; }

template <class Rig>
void golden_versions_load() {
  Rig any;
  const state::Schema schema = any.part().schema();
  if (const auto path = golden_record(schema.kind, schema.version); updating() && !std::filesystem::exists(path))
    write_text(path, text_of(bytes_of(any)));
  for (unsigned version = 1; version <= schema.version; ++version) {
    const std::string text = read_text(golden_record(schema.kind, version));
    ASSERT_FALSE(text.empty()) << golden_record(schema.kind, version) << " is missing";
    Rig rig;
    const auto restored = restore_bytes(rig, bytes_in(text), static_cast<u16>(version), 0);
    ASSERT_TRUE(restored) << restored.error().text();
  }
}

}  // namespace stasis::contract

#define DEVICE_CONTRACT(Name, Rig, poke)                                                                          \
  TEST(Name##Contract, twin_in_lockstep) { ::stasis::contract::twin_in_lockstep<Rig>(poke); }                     \
  TEST(Name##Contract, reset_equals_fresh) { ::stasis::contract::reset_equals_fresh<Rig>(poke); }                 \
  TEST(Name##Contract, damage_is_refused_or_harmless) { ::stasis::contract::damage_is_refused_or_harmless<Rig>(poke); } \
  TEST(Name##Contract, schema_is_locked) { Rig rig; ::stasis::contract::schema_is_locked(rig.part().schema()); }  \
  TEST(Name##Contract, golden_versions_load) { ::stasis::contract::golden_versions_load<Rig>(); }
