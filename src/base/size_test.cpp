#include "base/size.hpp"

#include <gtest/gtest.h>

using namespace stasis;
namespace {

TEST(Size, units_are_binary) {
  EXPECT_EQ(parse_size("0").value(), 0u);
  EXPECT_EQ(parse_size("1048576").value(), kMiB);
  EXPECT_EQ(parse_size("3K").value(), 3 * kKiB);
  EXPECT_EQ(parse_size("512M").value(), 512 * kMiB);
  EXPECT_EQ(parse_size("6g").value(), 6 * kGiB);
  EXPECT_EQ(parse_size("2T").value(), 2048 * kGiB);
  EXPECT_EQ(parse_size("18446744073709551615").value(), ~0ull);
}

TEST(Size, refuses_what_is_no_size) {
  for (const char* text : {"", "M", "-1", "+1", " 1", "1 ", "1 M", "1.5G", "0x10", "1MB", "1MiB", "1P", "1KK", "512M\n"})
    EXPECT_FALSE(parse_size(text)) << text;
}

TEST(Size, refuses_more_than_64_bits) {
  EXPECT_FALSE(parse_size("18446744073709551616"));
  EXPECT_FALSE(parse_size("16777216T"));
  EXPECT_TRUE(parse_size("16777215T"));
}

TEST(Size, error_names_object_value_and_way_out) {
  const Error error = parse_size("12Q", "--memory").error();
  EXPECT_EQ(error.code, ErrorCode::usage);
  const std::string text = error.text();
  for (const char* part : {"--memory", "12Q", "K, M, G or T", "512M"}) EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST(Size, prints_what_it_reads) {
  EXPECT_EQ(format_size(512 * kMiB), "512M");
  EXPECT_EQ(format_size(1536 * kMiB), "1536M");
  for (u64 size : {0ull, 1ull, 1000ull, 4096ull, 6ull << 30, ~0ull}) EXPECT_EQ(parse_size(format_size(size)).value(), size);
}

}  // namespace
