// The control socket for real: names, peers, many clients, hostile ones, the end. The machine is a fake.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <future>

#include "control/client.hpp"
#include "control/fake_target.hpp"
#include "control/server.hpp"

namespace stasis::control {
namespace {

class ControlSocket : public ::testing::Test {
 protected:
  ControlSocket() {
    std::string pattern = (std::filesystem::temp_directory_path() / "stasis-socket.XXXXXX").string();
    dir_ = std::string(::mkdtemp(pattern.data())) + "/run";
  }
  ~ControlSocket() override {
    server_.reset();
    std::filesystem::remove_all(std::filesystem::path(dir_).parent_path());
  }
  void serve() {
    auto name = ClaimedName::claim("m", dir_);
    ASSERT_TRUE(name) << name.error().text();
    auto server = Server::start(std::move(*name), target_);
    ASSERT_TRUE(server) << server.error().text();
    server_ = std::move(*server);
  }
  FileDescriptor connect() const {
    FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket_path(dir_, "m").copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return socket;
  }
  static void send(int socket, std::string_view text) { (void)::send(socket, text.data(), text.size(), MSG_NOSIGNAL); }
  // What comes until `wanted` bytes are there, the peer ends, or nothing comes for a while.
  static std::string receive(int socket, std::size_t wanted = ~std::size_t{0}) {
    std::string out;
    char chunk[4096];
    pollfd fd{socket, POLLIN, 0};
    while (out.size() < wanted && ::poll(&fd, 1, 2000) > 0) {
      const ssize_t got = ::recv(socket, chunk, sizeof chunk, 0);
      if (got <= 0) break;
      out.append(chunk, static_cast<std::size_t>(got));
    }
    return out;
  }

  // Many connections that just left may still count against the cap.
  bool answers_soon() const {
    for (int i = 0; i < 100; ++i) {
      const auto client = Client::open("m", dir_);
      if (client && client->info()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
  }

  std::string dir_;
  FakeTarget target_;
  std::unique_ptr<Server> server_;
};

TEST_F(ControlSocket, AClientIsAnswered) {
  serve();
  const auto client = Client::open("m", dir_);
  ASSERT_TRUE(client) << client.error().text();
  const auto info = client->info();
  ASSERT_TRUE(info) << info.error().text();
  EXPECT_EQ(info->vm.name, "fake");
  EXPECT_EQ(info->pid, ::getpid());
  ASSERT_TRUE(client->call("PUT", "/v1/machine/pause"));
  EXPECT_EQ(target_.last(), "pause");
  const auto refused = client->call("DELETE", "/v1/machine/save");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::state);
  EXPECT_EQ(refused.error().object, "machine fake");
}

TEST_F(ControlSocket, FolderAndSocketAreTheOwnersOnly) {
  serve();
  struct stat info {};
  ASSERT_EQ(::stat(dir_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0700u);
  ASSERT_EQ(::stat(socket_path(dir_, "m").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0600u);
}

TEST_F(ControlSocket, AFolderThatOthersMayWriteIsRefused) {
  std::filesystem::create_directory(dir_);
  ASSERT_EQ(::chmod(dir_.c_str(), 0777), 0);
  const auto claimed = ClaimedName::claim("m", dir_);
  ASSERT_FALSE(claimed);
  EXPECT_EQ(claimed.error().code, ErrorCode::permission);
}

TEST_F(ControlSocket, ANameInUseNamesItsProcess) {
  serve();
  const auto second = ClaimedName::claim("m", dir_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::exists);
  EXPECT_NE(second.error().message.find(std::to_string(::getpid())), std::string::npos) << second.error().text();
  EXPECT_TRUE(Client::open("m", dir_));  // and did no harm
  EXPECT_TRUE(ClaimedName::claim("other", dir_));
}

TEST_F(ControlSocket, AStaleSocketIsRecognisedAndReplaced) {
  std::filesystem::create_directory(dir_);
  {
    const FileDescriptor dead(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket_path(dir_, "m").copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  const auto stale = Client::open("m", dir_);
  ASSERT_FALSE(stale);
  EXPECT_EQ(stale.error().code, ErrorCode::not_found);
  EXPECT_NE(stale.error().message.find("stale"), std::string::npos);
  serve();
  EXPECT_TRUE(Client::open("m", dir_));
}

TEST_F(ControlSocket, NothingIsLeftAtTheEnd) {
  serve();
  server_.reset();
  EXPECT_TRUE(std::filesystem::is_empty(dir_));
  const auto gone = Client::open("m", dir_);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, ErrorCode::not_found);
}

TEST_F(ControlSocket, ASecondConnectionIsServedWhileOneSaves) {
  std::promise<void> saving, go_on;
  target_.while_saving = [&] {
    saving.set_value();
    go_on.get_future().wait();
  };
  serve();
  const auto client = Client::open("m", dir_);
  ASSERT_TRUE(client);
  auto save = std::async(std::launch::async, [&] {
    return client->call("PUT", "/v1/machine/suspend", save_request_to_json({.path = "/b/a"}));
  });
  saving.get_future().wait();
  EXPECT_TRUE(client->info());
  // The end of the server waits for the answer under way.
  auto end = std::async(std::launch::async, [&] { server_->stop(); });
  EXPECT_EQ(end.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  go_on.set_value();
  const auto saved = save.get();
  ASSERT_TRUE(saved) << saved.error().text();
  EXPECT_EQ(target_.last(), "suspend /b/a");
  end.wait();
}

TEST_F(ControlSocket, KeepsAConnectionForSeveralRequests) {
  serve();
  const FileDescriptor socket = connect();
  for (int i = 0; i < 3; ++i) {
    send(socket.get(), "GET /v1/machine/digest?x HTTP/1.1\r\nHost: a\r\n\r\n");
    const std::string answer = receive(socket.get(), 100);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200")) << answer;
  }
}

TEST_F(ControlSocket, HostileClientsAreRefusedAndTheNextOneIsServed) {
  serve();
  const std::pair<std::string, const char*> cases[] = {
      {"\x16\x03\x01\x02 nonsense\r\n\r\n", "HTTP/1.1 400"},
      {"GET /v1/machine HTTP/9.9\r\n\r\n", "HTTP/1.1 400"},
      {"GET / HTTP/1.1\r\nA: " + std::string(20000, 'a') + "\r\n\r\n", "HTTP/1.1 431"},
      {"PUT /v1/machine/suspend HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", "HTTP/1.1 413"},
      {"PUT /v1/machine/suspend HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 400"},
      {"PUT /v1/machine/suspend HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n" + std::string(70000, 'a'), "HTTP/1.1 413"},
      {"PUT /v1/machine/suspend HTTP/1.1\r\nContent-Length: 5000\r\n\r\n" + std::string(5000, '['), "HTTP/1.1 400"},
      {"GET /" + std::string(5000, '%') + " HTTP/1.1\r\n\r\n", "HTTP/1.1 404"},
  };
  for (const auto& [text, wanted] : cases) {
    const FileDescriptor socket = connect();
    send(socket.get(), text);
    const std::string answer = receive(socket.get(), 20);
    EXPECT_TRUE(answer.starts_with(wanted)) << text.substr(0, 60) << " -> " << answer.substr(0, 60);
  }
  for (int i = 0; i < 100; ++i) {  // those that leave in the middle
    const FileDescriptor socket = connect();
    send(socket.get(), std::string_view("PUT /v1/machine/suspend HTTP/1.1\r\nContent-Length: 9\r\n\r\n{").substr(0, static_cast<std::size_t>(i)));
  }
  EXPECT_TRUE(answers_soon());
  EXPECT_TRUE(target_.last().empty());
}

TEST_F(ControlSocket, HasACapOnConnectionsAndRecoversFromIt) {
  serve();
  {
    std::vector<FileDescriptor> idle;
    for (std::size_t i = 0; i < Server::kMostConnections; ++i) idle.push_back(connect());
    const FileDescriptor one_more = connect();
    EXPECT_TRUE(receive(one_more.get(), 20).starts_with("HTTP/1.1 503"));
  }
  EXPECT_TRUE(answers_soon()) << "the connections were never freed";
}

TEST_F(ControlSocket, IdleConnectionsDoNotDelayTheEnd) {
  serve();
  const FileDescriptor idle = connect(), half = connect();
  send(half.get(), "GET /v1/mach");
  const auto began = std::chrono::steady_clock::now();
  server_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
}

TEST_F(ControlSocket, TheConsoleIsAByteStream) {
  serve();
  const auto client = Client::open("m", dir_);
  ASSERT_TRUE(client);
  auto console = client->console();
  ASSERT_TRUE(console) << console.error().text();
  std::string all;
  for (int i = 0; i < 256; ++i) all.push_back(static_cast<char>(i));
  while (target_.listening() == 0) std::this_thread::yield();
  send(console->socket.get(), all);
  EXPECT_EQ(receive(console->socket.get(), 256), all);  // the fake echoes
  console->socket.reset();
  for (int i = 0; i < 200 && target_.listening() > 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(target_.listening(), 0u);
}

TEST_F(ControlSocket, AConsoleThatDoesNotReadNeitherStopsTheGuestNorTheEnd) {
  serve();
  const auto client = Client::open("m", dir_);
  ASSERT_TRUE(client);
  const auto console = client->console();
  ASSERT_TRUE(console);
  while (target_.listening() == 0) std::this_thread::yield();
  const std::vector<u8> chunk(65536, 'x');
  for (int i = 0; i < 200; ++i) target_.console_input(chunk);  // 13 MiB, from "the guest"
  const auto began = std::chrono::steady_clock::now();
  server_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(8));
}

}  // namespace
}  // namespace stasis::control
