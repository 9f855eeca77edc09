// Text from outside: what is UTF-8, and what a terminal gets to see.
#include "base/text.hpp"

#include <gtest/gtest.h>

using namespace stasis;
namespace {

TEST(Text, knows_utf8) {
  for (const char* good : {"", "abc", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf"}) EXPECT_TRUE(is_utf8(good)) << good;
  for (const char* bad : {"\x80", "\xc3", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xe2\x82", "a\xff"})
    EXPECT_FALSE(is_utf8(bad)) << bad;
  EXPECT_TRUE(is_utf8(std::string_view("\0", 1)));
}

TEST(Text, leaves_a_terminal_alone) {
  EXPECT_EQ(printable("h\xc3\xa4, \n"), "h\xc3\xa4, \n");
  EXPECT_EQ(printable("\x1b[2J\r\x7f\xc2\x9b\xff"), "\\x1b[2J\\x0d\\x7f\\xc2\\x9b\\xff");
}

}  // namespace
