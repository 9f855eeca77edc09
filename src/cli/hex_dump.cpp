// A hexadecimal dump.
#include "cli/hex_dump.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace stasis::cli {
namespace {

constexpr std::size_t kRow = 16;

std::string row_text(u64 address, Bytes row) {
  std::string out = fmt::format("{:016x} ", address), characters;
  for (std::size_t i = 0; i < kRow; ++i) {
    if (i % 8 == 0) out += ' ';
    out += i < row.size() ? fmt::format("{:02x} ", row[i]) : "   ";
    if (i < row.size()) characters += row[i] >= 0x20 && row[i] < 0x7f ? static_cast<char>(row[i]) : '.';
  }
  return out + " |" + characters + "|\n";
}

}  // namespace

std::string HexDump::lines(u64 address, Bytes bytes) {
  std::string out;
  for (std::size_t at = 0; at < bytes.size(); at += kRow) {
    const Bytes row = bytes.subspan(at, std::min(kRow, bytes.size() - at));
    next_ = address + at + row.size();
    if (row.size() == kRow && std::equal(row.begin(), row.end(), last_.begin(), last_.end())) {
      if (!starred_) out += "*\n";
      starred_ = true;
      continue;
    }
    starred_ = false;
    last_.assign(row.begin(), row.end());
    out += row_text(address + at, row);
  }
  return out;
}

std::string HexDump::end() const { return starred_ ? fmt::format("{:016x}\n", next_) : std::string(); }

}  // namespace stasis::cli
