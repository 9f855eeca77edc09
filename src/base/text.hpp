// Text from outside: whether it is UTF-8, and how to show it without harm to a terminal.
#pragma once

#include <string>
#include <string_view>

namespace stasis {

bool is_utf8(std::string_view text);  // RFC 3629: no overlong forms, no surrogates, nothing after U+10FFFF

// Control characters (but for line ends) and bytes that are not UTF-8 become \xNN.
std::string printable(std::string_view text);

}  // namespace stasis
