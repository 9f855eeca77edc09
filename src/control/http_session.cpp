// The server's half of HTTP, by Boost.Beast. Asynchronous calls on a private io_context, one at a time, because
// only those have deadlines.
#include "control/http_session.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <exception>
#include <optional>

#include "base/log.hpp"
#include "base/version.hpp"
#include "control/console_stream.hpp"
#include "control/verbs.hpp"

namespace stasis::control {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
using Local = boost::asio::local::stream_protocol;

constexpr u32 kMostHeader = 8 * 1024;
constexpr u64 kMostBody = 64 * 1024;
constexpr std::chrono::seconds kRequestTime{30};  // from the end of the last answer to the end of the request
constexpr std::chrono::seconds kAnswerTime{10};

class Session {
 public:
  Session(int socket, Target& target) : socket_(socket), target_(target), stream_(context_) {}
  void run();

 private:
  using Parser = http::request_parser<http::string_body>;
  bool read(Parser& parser);
  bool write(Answer answer, bool keep_alive, unsigned http_version);
  void become_console(const http::request<http::string_body>& request);
  void refuse(beast::error_code error);
  template <class Start>
  beast::error_code finish(Start start);

  int socket_;
  Target& target_;
  boost::asio::io_context context_{1};
  beast::basic_stream<Local> stream_;
  beast::flat_buffer buffer_{kMostHeader + kMostBody};
};

// Runs one asynchronous operation to its end.
template <class Start>
beast::error_code Session::finish(Start start) {
  beast::error_code result;
  start([&](beast::error_code error, std::size_t) { result = error; });
  context_.restart();
  context_.run();
  return result;
}

bool Session::read(Parser& parser) {
  parser.header_limit(kMostHeader);
  parser.body_limit(kMostBody);
  stream_.expires_after(kRequestTime);
  const auto error = finish([&](auto done) { http::async_read(stream_, buffer_, parser, done); });
  if (error) refuse(error);
  return !error;
}

// What the peer can be told before the connection ends; nothing when it went away or said nothing.
void Session::refuse(beast::error_code error) {
  Answer answer;
  if (error == http::error::header_limit || error == http::error::buffer_overflow)
    answer = answer_error({ErrorCode::usage, "request", fmt::format("header is longer than {} bytes", kMostHeader), ""});
  else if (error == http::error::body_limit)
    answer = answer_error({ErrorCode::usage, "request", fmt::format("body is longer than {} bytes", kMostBody), ""});
  else if (error.category() == http::make_error_code(http::error::bad_method).category() &&
           error != http::error::end_of_stream && error != http::error::partial_message)
    answer = answer_error({ErrorCode::usage, "request", fmt::format("is no HTTP/1.1: {}", error.message()), ""});
  else return;
  if (error == http::error::header_limit || error == http::error::buffer_overflow) answer.status = 431;
  if (error == http::error::body_limit) answer.status = 413;
  write(std::move(answer), false, 11);
}

bool Session::write(Answer answer, bool keep_alive, unsigned http_version) {
  http::response<http::string_body> response(static_cast<http::status>(answer.status), http_version);
  response.set(http::field::server, fmt::format("stasis/{}", version()));
  response.set(http::field::content_type, "application/json");
  if (!answer.allow.empty()) response.set(http::field::allow, answer.allow);
  response.keep_alive(keep_alive);
  response.body() = std::move(answer.body);
  response.prepare_payload();
  stream_.expires_after(kAnswerTime);
  return !finish([&](auto done) { http::async_write(stream_, response, done); });
}

void Session::become_console(const http::request<http::string_body>& request) {
  http::response<http::empty_body> response(http::status::switching_protocols, request.version());
  response.set(http::field::connection, "Upgrade");
  response.set(http::field::upgrade, beast::string_view(kConsoleProtocol.data(), kConsoleProtocol.size()));
  stream_.expires_after(kAnswerTime);
  if (finish([&](auto done) { http::async_write(stream_, response, done); })) return;
  const auto left = buffer_.data();
  pump_console(socket_, target_, Bytes(static_cast<const u8*>(left.data()), left.size()));
}

void Session::run() {
  const int own = ::dup(socket_);
  if (own < 0) return;
  stream_.socket().assign(Local(), own);
  for (;;) {
    Parser parser;
    if (!read(parser)) return;
    const auto request = parser.release();
    const auto text = [](beast::string_view view) { return std::string(view.data(), view.size()); };
    const std::string target = text(request.target());
    Request asked{text(request.method_string()), target.substr(0, target.find('?')), request.body()};
    const bool wants_console = beast::iequals(request[http::field::upgrade],
                                              beast::string_view(kConsoleProtocol.data(), kConsoleProtocol.size()));
    if (wants_console && asked.method == "GET" && asked.path == kConsolePath) return become_console(request);
    if (!write(answer(target_, asked), request.keep_alive(), request.version()) || !request.keep_alive()) return;
  }
}

}  // namespace

void serve_http(int socket, Target& target) noexcept {
  try {
    Session(socket, target).run();
  } catch (const std::exception& error) {
    log::warning("control: a connection ended early: {}", error.what());
  }
}

}  // namespace stasis::control
