// Symbols in order, and the text form of them.
#include "inspect/symbols.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <numeric>

#include "base/text.hpp"

namespace stasis::inspect {
namespace {

constexpr u64 kMostText = 256 * kMiB;
constexpr u64 kKernelHalf = 1ull << 63;
constexpr std::string_view kBanner = "linux_banner", kBannerText = "Linux version ";
constexpr u64 kSlideStep = 2 * kMiB, kMostSlide = kGiB;  // CONFIG_PHYSICAL_ALIGN, and the room for the kernel's image

struct Line {
  u64 address = 0;
  char type = '?';
  std::string_view name;
};

// "ffffffff81000000 T _text", behind which kallsyms may name a module.
std::optional<Line> line_from(std::string_view text) {
  Line out;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out.address, 16);
  const auto used = static_cast<std::size_t>(end - text.data());
  if (error != std::errc() || text.size() < used + 4 || text[used] != ' ' || text[used + 2] != ' ') return std::nullopt;
  out.type = text[used + 1];
  out.name = text.substr(used + 3);
  out.name = out.name.substr(0, out.name.find_first_of(" \t\r"));
  if (out.name.empty()) return std::nullopt;
  return out;
}

}  // namespace

Symbols Symbols::from_list(std::vector<Symbol> symbols) {
  // Per-CPU offsets and constants are low numbers that would be taken for programs' addresses.
  const auto in_kernel = [](const Symbol& symbol) { return symbol.address >= kKernelHalf; };
  if (std::any_of(symbols.begin(), symbols.end(), in_kernel)) std::erase_if(symbols, [&](const Symbol& symbol) { return !in_kernel(symbol); });
  std::stable_sort(symbols.begin(), symbols.end(), [](const Symbol& a, const Symbol& b) { return a.address < b.address; });
  Symbols out;
  out.all_ = std::move(symbols);
  u64 next = 0;  // the nearest higher address; 0: none
  for (std::size_t i = out.all_.size(); i-- > 0;) {
    Symbol& symbol = out.all_[i];
    if (i + 1 < out.all_.size() && out.all_[i + 1].address != symbol.address) next = out.all_[i + 1].address;
    if (symbol.size == 0) symbol.size = next == 0 ? 8 : std::min(next - symbol.address, kMostGuessedSize);
  }
  out.by_name_.resize(out.all_.size());
  std::iota(out.by_name_.begin(), out.by_name_.end(), 0u);
  std::stable_sort(out.by_name_.begin(), out.by_name_.end(), [&](u32 a, u32 b) { return out.all_[a].name < out.all_[b].name; });
  return out;
}

Result<Symbols> Symbols::from_text(std::string_view text, const std::string& object) {
  std::vector<Symbol> symbols;
  bool any_address = false;
  for (u64 number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty()) continue;
    const auto parsed = line_from(line);
    if (!parsed)
      return fail(ErrorCode::bad_file, object, fmt::format("line {} is '{}', wanted is 'ADDRESS TYPE NAME'", number, printable(line.substr(0, 80))),
                  "give a System.map, a saved /proc/kallsyms, or an ELF file with symbols");
    any_address |= parsed->address != 0;
    if (symbols.size() >= kMostSymbols) return fail(ErrorCode::bad_file, object, fmt::format("has more than {} symbols", kMostSymbols), "this is no System.map");
    if (parsed->type != 'a' && parsed->type != 'U' && parsed->type != 'w') symbols.push_back({parsed->address, 0, std::string(parsed->name)});
  }
  if (!any_address)
    return fail(ErrorCode::bad_file, object, symbols.empty() ? "has no symbols" : "says 0 for every address",
                symbols.empty() ? "give a System.map, a saved /proc/kallsyms, or an ELF file with symbols"
                                : "the guest hid them: copy its /proc/kallsyms as root, with kernel.kptr_restrict=0");
  return from_list(std::move(symbols));
}

Result<Symbols> Symbols::load(const snapshot::Source& source, const std::string& object) {
  std::array<u8, 4> magic{};
  if (source.size() >= magic.size()) STASIS_TRY(source.read(0, magic));
  if (magic == std::array<u8, 4>{0x7f, 'E', 'L', 'F'}) return from_elf(source, object);
  if (source.size() > kMostText)
    return fail(ErrorCode::bad_file, object, fmt::format("has {} bytes, a System.map has at most {}", source.size(), kMostText), "give a System.map or an ELF file");
  std::string text(source.size(), '\0');
  STASIS_TRY(source.read(0, {reinterpret_cast<u8*>(text.data()), text.size()}));
  return from_text(text, object);
}

const Symbol* Symbols::find(std::string_view name) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name, [&](u32 i, std::string_view wanted) { return all_[i].name < wanted; });
  return at != by_name_.end() && all_[*at].name == name ? &all_[*at] : nullptr;
}

const Symbol* Symbols::at(u64 address) const {
  auto after = std::upper_bound(all_.begin(), all_.end(), address, [](u64 wanted, const Symbol& symbol) { return wanted < symbol.address; });
  if (after == all_.begin()) return nullptr;
  const Symbol& symbol = *--after;
  return address - symbol.address < symbol.size ? &symbol : nullptr;
}

std::string Symbols::place(u64 address) const {
  const Symbol* symbol = at(address);
  if (!symbol) return {};
  return address == symbol->address ? symbol->name : fmt::format("{}+{:#x}/{:#x}", symbol->name, address - symbol->address, symbol->size);
}

std::optional<u64> slide_of(const Symbols& symbols, const PhysicalMemory& memory, const AddressSpace& space) {
  const Symbol* banner = symbols.find(kBanner);
  if (!banner) return std::nullopt;
  const auto is_here = [&](u64 address) {
    std::array<u8, kBannerText.size()> found{};
    return read_virtual(memory, space, address, found, "") && std::memcmp(found.data(), kBannerText.data(), found.size()) == 0;
  };
  for (u64 slide = 0; slide < kMostSlide; slide += kSlideStep) {
    if (is_here(banner->address + slide)) return slide;
    if (slide && is_here(banner->address - slide)) return 0 - slide;  // the file is of the running, moved kernel
  }
  return std::nullopt;
}

}  // namespace stasis::inspect
