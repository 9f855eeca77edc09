// The client's half of HTTP, by Boost.Beast.
#include "control/client.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <exception>

#include "base/unix_address.hpp"
#include "base/version.hpp"
#include "control/verbs.hpp"

namespace stasis::control {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
using Local = boost::asio::local::stream_protocol;

constexpr u64 kMostAnswer = 16 * kMiB;
constexpr unsigned kConnectSeconds = 5;

class Call {
 public:
  Call(std::string object, std::string socket) : object_(std::move(object)), path_(std::move(socket)), stream_(context_) {}

  Result<> connect();
  template <class Request>
  Result<> send(Request& request);
  template <class Parser>
  Result<> receive(Parser& parser);
  template <class Parser>
  Result<> receive_header(Parser& parser);
  void limit(std::optional<unsigned> seconds) { seconds_ = seconds; }
  FileDescriptor take_socket();
  Bytes left() const;

 private:
  template <class Start>
  beast::error_code finish(Start start);
  std::unexpected<Error> failed(beast::error_code error, std::string_view doing) const;

  std::string object_, path_;
  std::optional<unsigned> seconds_ = kConnectSeconds;
  boost::asio::io_context context_{1};
  beast::basic_stream<Local> stream_;
  beast::flat_buffer buffer_;
};

template <class Start>
beast::error_code Call::finish(Start start) {
  if (seconds_) stream_.expires_after(std::chrono::seconds(*seconds_));
  else stream_.expires_never();
  beast::error_code result;
  start([&](beast::error_code error, auto&&...) { result = error; });
  context_.restart();
  context_.run();
  return result;
}

std::unexpected<Error> Call::failed(beast::error_code error, std::string_view doing) const {
  namespace errc = boost::system::errc;
  if (error == errc::no_such_file_or_directory)
    return fail(ErrorCode::not_found, object_, "is not running", "see 'stasis list' for the machines that run");
  if (error == errc::connection_refused)
    return fail(ErrorCode::not_found, object_, "is not running; its process died and left a stale socket",
                "start it again, or remove " + path_);
  if (error == errc::permission_denied)
    return fail(ErrorCode::permission, object_, "belongs to another user", "run stasis as that user or as root");
  if (error == beast::error::timeout)
    return fail(ErrorCode::busy, object_, fmt::format("did not answer within {} seconds", seconds_.value_or(0)),
                "its process may be stopped or the host overloaded; try again");
  if (error == http::error::end_of_stream || error == http::error::partial_message || error == errc::broken_pipe ||
      error == errc::connection_reset)
    return fail(ErrorCode::host, object_, "ended the connection without an answer", "see 'stasis list' whether it still runs");
  return fail(ErrorCode::host, object_, fmt::format("{}: {}", doing, error.message()));
}

Result<> Call::connect() {
  STASIS_TRY(unix_address(path_, "set STASIS_RUNTIME_DIR to a shorter path"));
  const auto error = finish([&](auto done) { stream_.async_connect(Local::endpoint(path_), done); });
  if (error) return failed(error, "connect");
  return {};
}

template <class Request>
Result<> Call::send(Request& request) {
  const auto error = finish([&](auto done) { http::async_write(stream_, request, done); });
  // A server that turns us away closes without reading; its answer is still there.
  if (error && error != boost::system::errc::broken_pipe) return failed(error, "send");
  return {};
}

template <class Parser>
Result<> Call::receive(Parser& parser) {
  const auto error = finish([&](auto done) { http::async_read(stream_, buffer_, parser, done); });
  if (error) return failed(error, "receive");
  return {};
}

template <class Parser>
Result<> Call::receive_header(Parser& parser) {
  const auto error = finish([&](auto done) { http::async_read_header(stream_, buffer_, parser, done); });
  if (error) return failed(error, "receive");
  return {};
}

FileDescriptor Call::take_socket() {
  beast::error_code error;
  FileDescriptor socket(stream_.release_socket().release(error));
  // Asio made it non-blocking; its new owner expects the usual manner.
  if (socket) ::fcntl(socket.get(), F_SETFL, ::fcntl(socket.get(), F_GETFL) & ~O_NONBLOCK);
  return socket;
}

Bytes Call::left() const {
  const auto data = buffer_.data();
  return {static_cast<const u8*>(data.data()), data.size()};
}

http::request<http::string_body> request_for(std::string_view method, std::string_view path) {
  http::request<http::string_body> request;
  request.method_string(beast::string_view(method.data(), method.size()));
  request.target(beast::string_view(path.data(), path.size()));
  request.version(11);
  request.set(http::field::host, "stasis");
  request.set(http::field::user_agent, fmt::format("stasis/{}", version()));
  return request;
}

// No exception leaves this room; what Boost throws here is out of memory or descriptors.
template <class Action>
auto guarded(const std::string& object, Action action) -> decltype(action()) {
  try {
    return action();
  } catch (const std::exception& error) {
    return fail(ErrorCode::host, object, fmt::format("talk to it: {}", error.what()));
  }
}

}  // namespace

Result<Client> Client::open(std::string_view name, const std::string& dir) {
  STASIS_TRY(check_name(name));
  Client client;
  client.object_ = fmt::format("machine {}", name);
  client.socket_ = socket_path(dir, name);
  STASIS_TRY(guarded(client.object_, [&] { return Call(client.object_, client.socket_).connect(); }));
  return client;
}

Result<std::string> Client::call(std::string_view method, std::string_view path, const std::string& body,
                                 std::optional<unsigned> seconds) const {
  return guarded(object_, [&]() -> Result<std::string> {
    Call call(object_, socket_);
    STASIS_TRY(call.connect());
    auto request = request_for(method, path);
    request.keep_alive(false);
    if (!body.empty()) request.set(http::field::content_type, "application/json");
    request.body() = body;
    request.prepare_payload();
    STASIS_TRY(call.send(request));
    http::response_parser<http::string_body> parser;
    parser.body_limit(kMostAnswer);
    call.limit(seconds);
    STASIS_TRY(call.receive(parser));
    if (parser.get().result_int() / 100 != 2) return std::unexpected(error_from(parser.get().body(), object_));
    return std::move(parser.get().body());
  });
}

Result<MachineReport> Client::info(unsigned seconds) const {
  STASIS_TRY_SET(const std::string text, call("GET", "/v1/machine", {}, seconds));
  return machine_report_from(text, object_);
}

Result<Client::ConsoleStream> Client::console() const {
  return guarded(object_, [&]() -> Result<ConsoleStream> {
    Call call(object_, socket_);
    STASIS_TRY(call.connect());
    auto request = request_for("GET", std::string_view(kConsolePath));
    request.set(http::field::connection, "Upgrade");
    request.set(http::field::upgrade, beast::string_view(kConsoleProtocol.data(), kConsoleProtocol.size()));
    STASIS_TRY(call.send(request));
    http::response_parser<http::string_body> parser;
    STASIS_TRY(call.receive_header(parser));
    if (parser.get().result() != http::status::switching_protocols) {
      STASIS_TRY(call.receive(parser));
      return std::unexpected(error_from(parser.get().body(), object_));
    }
    const Bytes left = call.left();
    ConsoleStream stream{.socket = {}, .early = std::vector<u8>(left.begin(), left.end())};
    stream.socket = call.take_socket();
    return stream;
  });
}

}  // namespace stasis::control
