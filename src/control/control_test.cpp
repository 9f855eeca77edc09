// The control protocol without sockets: names, the runtime folder, JSON bodies, verbs.
#include <gtest/gtest.h>

#include "control/fake_target.hpp"
#include "control/messages.hpp"
#include "control/runtime_dir.hpp"
#include "control/verbs.hpp"

namespace stasis::control {
namespace {

TEST(MachineName, AllowsWhatAFileAndAUrlCanHold) {
  for (const char* name : {"a", "web1", "A.b_c-9", "_", "9"}) EXPECT_TRUE(check_name(name)) << name;
  EXPECT_TRUE(check_name(std::string(64, 'x')));
}

TEST(MachineName, RefusesTheRest) {
  for (const char* name : {"", ".", "..", ".a", "-a", "a/b", "a b", "ä", "a\n", "a:b"}) {
    const auto checked = check_name(name);
    ASSERT_FALSE(checked) << name;
    EXPECT_EQ(checked.error().code, ErrorCode::usage);
  }
  EXPECT_FALSE(check_name(std::string(65, 'x')));
  EXPECT_FALSE(check_name(std::string_view("a\0b", 3)));
}

TEST(RuntimeDir, IsChosenInThisOrder) {
  EXPECT_EQ(runtime_dir({"/x", "/run/user/7", 7}), "/x");
  EXPECT_EQ(runtime_dir({"/x", "/run/user/0", 0}), "/x");
  EXPECT_EQ(runtime_dir({std::nullopt, "/run/user/0", 0}), "/run/stasis");
  EXPECT_EQ(runtime_dir({std::nullopt, "/run/user/7", 7}), "/run/user/7/stasis");
  EXPECT_EQ(runtime_dir({"", "", 7}), "/tmp/stasis-7");
}

TEST(Messages, TheMachineReportComesBackAsItWasSent) {
  FakeTarget target;
  MachineReport sent{target.info(), 4711, "1.2.3"};
  sent.vm.pace = Pace::fast;
  sent.vm.config.cpus = 3;
  sent.vm.config.debug_exit = true;
  sent.vm.config.start_time = 1'750'000'000;
  sent.vm.restored_from = "/srv/\"a\".stasis";
  sent.vm.problem = Error{ErrorCode::bad_file, "snapshot a", "is damaged", "take another"};
  sent.vm.save = {.active = true, .path = "/b", .bytes_done = 5, .bytes_total = ~0ull, .written = true};
  const auto got = machine_report_from(to_json(sent), "machine fake");
  ASSERT_TRUE(got) << got.error().text();
  EXPECT_EQ(to_json(*got), to_json(sent));
  EXPECT_EQ(got->vm.save.bytes_total, ~0ull);
  EXPECT_EQ(got->vm.problem->code, ErrorCode::bad_file);
  EXPECT_EQ(got->vm.retired, 12'345'678'901'234u);
}

TEST(Messages, AnErrorComesBackAsItWasSent) {
  const Error sent{ErrorCode::busy, "machine a", "is \xff being saved", "wait"};
  const Error got = error_from(to_json(sent), "machine b");
  EXPECT_EQ(got.code, sent.code);
  EXPECT_EQ(got.object, sent.object);
  EXPECT_EQ(got.hint, sent.hint);
  for (const char* text : {"", "{", "[]", "{\"error\":1}", "{\"error\":{\"code\":1}}"})
    EXPECT_FALSE(error_from(text, "machine b").message.empty()) << text;
}

TEST(Messages, NoAnswerFromOutsideIsTrusted) {
  for (const char* text : {"", "null", "[1]", "{}", R"({"state":"flying"})", R"({"state":5})", "{\"state\":\"running\""})
    EXPECT_FALSE(machine_report_from(text, "machine a")) << text;
  const auto odd = machine_report_from(R"({"state":"paused","pid":-1,"memory_bytes":"x","save":7})", "machine a");
  ASSERT_TRUE(odd);
  EXPECT_EQ(odd->vm.config.memory_bytes, 0u);
}

TEST(Messages, ASaveMeansTheClientsFolder) {
  EXPECT_EQ(save_request_from(R"({"path":"/a/b"})")->path, "/a/b");
  EXPECT_EQ(save_request_from(R"({"path":"/a/b","cwd":"/c"})")->path, "/a/b");
  EXPECT_EQ(save_request_from(R"({"path":"b","cwd":"/c"})")->path, "/c/b");
  EXPECT_EQ(save_request_from(R"({"path":"../b","cwd":"/c/"})")->path, "/c/../b");
  const SaveRequest sent{.path = "/ü/x y", .stream = true, .confirm = true, .encoding = snapshot::Encoding::packed, .level = 3, .encrypt_key = "/k",
                         .incremental_from = "/p", .parents = {"/r", "/s t"}, .decrypt_key = "/q", .compat = "1.0"};
  const auto got = save_request_from(save_request_to_json(sent));
  ASSERT_TRUE(got);
  EXPECT_EQ(save_request_to_json(*got), save_request_to_json(sent));
  EXPECT_EQ(save_request_from(R"({"path":"b","incremental_from":"p.stasis","cwd":"/c"})")->incremental_from, "/c/p.stasis");
  EXPECT_EQ(save_request_from(R"({"path":"b","parents":["p","/q"],"cwd":"/c"})")->parents, (std::vector<std::string>{"/c/p", "/q"}));
  for (const char* text : {R"({"path":"/b","level":20})", R"({"path":"/b","parents":"p"})", R"({"path":"/b","parents":[1]})", R"({"path":"/b","level":-1})", R"({"path":"/b","encoding":"zip"})", R"({"path":"/b","stream":1})"})
    EXPECT_FALSE(save_request_from(text)) << text;
  for (const char* text : {"", "{}", R"({"path":""})", R"({"path":"b"})", R"({"path":"b","cwd":"c"})", R"({"path":5})",
                           R"({"path":"/a\u0000b"})", R"({"path":"/a","to":"x"})", R"(["/a"])", R"({"path":"/a","confirm":true})", R"({"path":"/a","stream":true,"confirm":1})"}) {
    const auto refused = save_request_from(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code, ErrorCode::usage);
  }
}

TEST(Verbs, EachReachesTheMachine) {
  FakeTarget target;
  for (const char* verb : {"pause", "unpause", "powerdown", "reset", "stop"}) {
    EXPECT_EQ(answer(target, {"PUT", std::string("/v1/machine/") + verb, ""}).status, 200) << verb;
    EXPECT_EQ(target.last(), verb);
  }
  EXPECT_EQ(answer(target, {"PUT", "/v1/machine/save", confirmation_to_json("/run/fifo")}).status, 200);
  EXPECT_EQ(target.last(), "confirm_save /run/fifo");
  for (const char* body : {"", "{}", R"({"path":5})", R"({"path":"/f","now":true})"}) EXPECT_EQ(answer(target, {"PUT", "/v1/machine/save", body}).status, 400) << body;
  for (const char* verb : {"checkpoint", "suspend"}) {
    const Answer saved = answer(target, {"PUT", std::string("/v1/machine/") + verb, R"({"path":"a","cwd":"/b"})"});
    EXPECT_EQ(saved.status, 200);
    EXPECT_EQ(target.last(), std::string(verb) + " /b/a");
    EXPECT_EQ(save_report_from(saved.body, "x")->pages_present, 3u);
    EXPECT_NE(saved.body.find("/b/a"), std::string::npos);
  }
  EXPECT_EQ(*digest_from(answer(target, {"GET", "/v1/machine/digest", ""}).body, "x"), *target.digest());
  EXPECT_EQ(machine_report_from(answer(target, {"GET", "/v1/machine", ""}).body, "x")->vm.name, "fake");
}

TEST(Verbs, WhatIsWrongIsSaidWithAFittingStatus) {
  FakeTarget target;
  EXPECT_EQ(answer(target, {"GET", "/", ""}).status, 404);
  EXPECT_EQ(answer(target, {"GET", "/v1/machine/", ""}).status, 404);
  EXPECT_EQ(answer(target, {"GET", "/v2/machine", ""}).status, 404);
  EXPECT_EQ(answer(target, {"PUT", "/v1/machine/checkpoint", "{"}).status, 400);
  EXPECT_EQ(answer(target, {"GET", "/v1/machine/console", ""}).status, 400);
  EXPECT_EQ(answer(target, {"DELETE", "/v1/machine/save", ""}).status, 409);
  const Answer method = answer(target, {"POST", "/v1/machine/pause", ""});
  EXPECT_EQ(method.status, 405);
  EXPECT_EQ(method.allow, "PUT");
  EXPECT_EQ(error_from(method.body, "x").code, ErrorCode::usage);
  EXPECT_TRUE(target.last().empty());
}

}  // namespace
}  // namespace stasis::control
