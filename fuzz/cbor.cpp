// Fuzz: CBOR, schemas and the records of parts. What is accepted is written again as the same bytes.
#include "base/text.hpp"
#include "snapshot/bodies.hpp"
#include "state/codec.hpp"
#include "target.hpp"

using namespace stasis;

namespace {

struct InnerState {
  u8 a = 1;
  bool b = false;
  static constexpr auto layout() {
    using S = InnerState;
    return state::Layout("fuzz.inner", 1, state::field<&S::a>("a").range(1, 9), state::field<&S::b>("b"));
  }
};

struct OuterState {
  u32 word = 7;
  std::array<u8, 4> raw{};
  std::array<InnerState, 2> inner{};
  std::vector<u16> list{};
  state::Fifo<u8, 3> queue{};
  i32 offset = -5;
  std::string text{};
  static constexpr auto layout() {
    using S = OuterState;
    return state::Layout("fuzz.outer", 1, state::field<&S::word>("word").hex().allow(0xff), state::field<&S::raw>("raw"),
                         state::field<&S::inner>("inner"), state::field<&S::list>("list"), state::field<&S::queue>("queue"),
                         state::field<&S::offset>("offset"), state::field<&S::text>("text").range(0, 16));
  }
};

void try_record(const cbor::Value& value, Bytes input) {
  OuterState held;
  state::Problems problems;
  if (state::load_record(held, value, "", state::LoadContext{"fuzz", 1, problems}))
    FUZZ_LAW(std::ranges::equal(cbor::encode(state::save_record(held)), input));
  else
    FUZZ_LAW(!problems.empty() && !problems.front().message.empty());
}

void try_schema(const cbor::Value& value, const std::string& object) {
  const auto schema = state::schema_from_value(value, object);
  if (!schema) return;
  const cbor::Value again = state::to_value(*schema);
  const auto twice = state::schema_from_value(again, object);
  FUZZ_LAW(twice && *twice == *schema);
}

void try_part(cbor::Value value, const std::string& object) {
  const auto part = snapshot::part_from(std::move(value), "isa/uart0", object);
  if (!part) return;
  for (const state::FieldSchema& field : part->schema.fields) {
    const state::Found found = state::find(part->schema, part->state, field.name);
    if (!found.value || !found.schema) continue;
    const std::string shown = state::show(*found.value, *found.schema);
    FUZZ_LAW(shown.size() < (1 << 24));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const std::string object = "fuzz";
  const Bytes input(data, size);
  const auto value = snapshot::decode_body(input, object);
  if (!value) return 0;
  FUZZ_LAW(std::ranges::equal(cbor::encode(*value), input));
  try_record(*value, input);
  try_schema(*value, object);
  (void)snapshot::producer_from(*value, object);
  (void)snapshot::parts_from(*value, true, object);
  (void)snapshot::host_from(*value, object);
  (void)snapshot::parent_from(*value, object);
  (void)snapshot::encryption_from(*value, object);
  (void)snapshot::notes_from(*value, object);
  try_part(*value, object);
  return 0;
}
