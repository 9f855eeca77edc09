// UTF-8, character by character.
#include "base/text.hpp"

#include <fmt/format.h>

#include "base/types.hpp"

namespace stasis {
namespace {

u8 byte_at(std::string_view text, std::size_t at) { return at < text.size() ? static_cast<u8>(text[at]) : 0; }

// Length in bytes of the character at `at`; 0: no UTF-8 (RFC 3629, 4).
unsigned length_at(std::string_view text, std::size_t at) {
  const u8 first = byte_at(text, at), second = byte_at(text, at + 1);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const u8 least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const u8 most = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  if (second < least || second > most) return 0;
  const unsigned length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  for (unsigned i = 2; i < length; ++i)
    if ((byte_at(text, at + i) & 0xc0) != 0x80) return 0;
  return length;
}

// C0 and C1 controls, and DEL.
bool is_control(std::string_view character) {
  const u8 first = byte_at(character, 0);
  return first < 0x20 || first == 0x7f || (first == 0xc2 && byte_at(character, 1) < 0xa0);
}

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const unsigned length = length_at(text, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const unsigned length = length_at(text, at);
    const std::string_view character = text.substr(at, length ? length : 1);
    if (length != 0 && (character == "\n" || !is_control(character))) out += character;
    else
      for (const char c : character) out += fmt::format("\\x{:02x}", static_cast<u8>(c));
    at += character.size();
  }
  return out;
}

}  // namespace stasis
