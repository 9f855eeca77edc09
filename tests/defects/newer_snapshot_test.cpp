// A snapshot that a newer Stasis wrote: what its schemas say decides what a machine of today makes of it.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>

#include "tiny_machine.hpp"

using namespace stasis;
using namespace stasis::tiny;
namespace {

class NewerSnapshot : public ::testing::Test {
 protected:
  NewerSnapshot() {
    must(boot(halt())->save(folder_ / "a.stasis", nullptr));
    taken_ = take_apart(folder_ / "a.stasis");
  }
  Result<std::unique_ptr<Machine>> restored() {
    std::ranges::sort(taken_.image.parts, {}, &snapshot::PartRecord::path);
    write_file(folder_ / "b.stasis", put_together(taken_));
    return Machine::restore(folder_ / "b.stasis", {});
  }
  snapshot::PartRecord& part(std::string_view path) { return *std::ranges::find(taken_.image.parts, path, &snapshot::PartRecord::path); }

  Folder folder_;
  Taken taken_;
};

TEST_F(NewerSnapshot, a_kind_that_is_not_known) {
  taken_.image.parts.push_back({"device/new/0", {.kind = "test.new", .version = 1, .fields = {}}, cbor::Map{}});
  const auto refused = restored();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
  EXPECT_NE(refused.error().text().find("device/new/0: kind test.new is not known here"), std::string::npos) << refused.error().text();
  part("device/new/0").schema.skippable = true;
  const auto skipped = restored();
  EXPECT_TRUE(skipped) << skipped.error().text();
}

TEST_F(NewerSnapshot, a_vcpu_with_a_field_that_is_not_known) {
  snapshot::PartRecord& vcpu = part("cpu/0");
  const u16 known = vcpu.schema.version++;
  vcpu.schema.fields.push_back({.name = "novelty", .type = "u64", .since = vcpu.schema.version});
  vcpu.state.as<cbor::Map>()->set("novelty", u64{1});
  const auto refused = restored();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
  EXPECT_NE(refused.error().text().find(fmt::format("cpu/0: field 'novelty' is unknown here; the record is x86.vcpu version {}, known here is {}", known + 1, known)),
            std::string::npos) << refused.error().text();
  part("cpu/0").schema.fields.back().skippable = true;
  const auto skipped = restored();
  EXPECT_TRUE(skipped) << skipped.error().text();
}

TEST_F(NewerSnapshot, a_configuration_with_a_field_that_is_not_known) {
  snapshot::PartRecord& machine = taken_.image.machine;
  machine.schema.version++;
  machine.schema.fields.push_back({.name = "novelty", .type = "bool", .since = machine.schema.version, .skippable = true});
  machine.state.as<cbor::Map>()->set("novelty", true);
  const auto skipped = restored();
  EXPECT_TRUE(skipped) << skipped.error().text();
  machine.schema.fields.back().skippable = false;
  const auto refused = restored();
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text().find("machine: field 'novelty' is unknown here"), std::string::npos) << refused.error().text();
}

}  // namespace
