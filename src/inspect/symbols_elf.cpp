// Symbols from an ELF64 file's .symtab (System V ABI, chapter 4: "Sections", "Symbol Table").
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "inspect/symbols.hpp"

namespace stasis::inspect {
namespace {

constexpr u64 kMostSections = 65536, kMostTable = 512 * kMiB;
constexpr u64 kSectionHeader = 64, kSymbolBytes = 24;
constexpr std::size_t kMostName = 512;

template <class T>
T field(Bytes bytes, std::size_t offset) {
  T out;
  std::memcpy(&out, bytes.data() + offset, sizeof out);
  return out;
}

struct Section {
  u32 type = 0, link = 0;
  u64 offset = 0, size = 0, entry = 0;
};

class ElfFile {
 public:
  ElfFile(const snapshot::Source& source, const std::string& object) : source_(source), object_(object) {}

  Result<Symbols> symbols() {
    STASIS_TRY(read_sections());
    const auto table = std::find_if(sections_.begin(), sections_.end(), [](const Section& section) { return section.type == 2; });
    if (table == sections_.end())
      return fail(ErrorCode::bad_file, object_, "has no symbol table", "it was stripped: give the vmlinux with debug information, or a System.map");
    if (table->entry != kSymbolBytes || table->size % kSymbolBytes != 0)
      return damaged(fmt::format("the entries of its symbol table have {} bytes, allowed is {}", table->entry, kSymbolBytes));
    if (table->link >= sections_.size()) return damaged(fmt::format("its symbol table names section {} of {}", table->link, sections_.size()));
    STASIS_TRY_SET(const std::vector<u8> entries, body(*table, "symbol table"));
    STASIS_TRY_SET(const std::vector<u8> names, body(sections_[table->link], "symbol names"));
    STASIS_TRY_SET(std::vector<Symbol> found, collect(entries, names));
    return Symbols::from_list(std::move(found));
  }

 private:
  std::unexpected<Error> damaged(std::string what) const {
    return fail(ErrorCode::bad_file, object_, std::move(what), "the file is damaged or no ELF64 file of an x86-64 kernel");
  }

  Result<> read_sections() {
    std::vector<u8> header(64);
    if (source_.size() < header.size()) return damaged("ends within its ELF header");
    STASIS_TRY(source_.read(0, header));
    if (header[4] != 2 || header[5] != 1 || field<u16>(header, 18) != 62)
      return damaged(fmt::format("is of ELF class {}, byte order {}, machine {}; allowed is 2, 1, 62", header[4], header[5], field<u16>(header, 18)));
    const u64 offset = field<u64>(header, 40);
    const u16 entry = field<u16>(header, 58);
    u64 count = field<u16>(header, 60);
    if (offset == 0) return {};
    if (entry != kSectionHeader) return damaged(fmt::format("its section headers have {} bytes, allowed is {}", entry, kSectionHeader));
    if (count == 0) {  // too many for 16 bits: the first one tells
      if (!within(offset, kSectionHeader)) return damaged("its section headers are beyond its end");
      std::vector<u8> first(kSectionHeader);
      STASIS_TRY(source_.read(offset, first));
      count = field<u64>(first, 32);
    }
    if (count > kMostSections) return damaged(fmt::format("has {} sections, allowed are {}", count, kMostSections));
    if (!within(offset, count * kSectionHeader)) return damaged("its section headers are beyond its end");
    std::vector<u8> all(count * kSectionHeader);
    STASIS_TRY(source_.read(offset, all));
    for (u64 i = 0; i < count; ++i) {
      const Bytes at = Bytes(all).subspan(i * kSectionHeader, kSectionHeader);
      sections_.push_back({field<u32>(at, 4), field<u32>(at, 40), field<u64>(at, 24), field<u64>(at, 32), field<u64>(at, 56)});
    }
    return {};
  }

  bool within(u64 offset, u64 size) const { return offset <= source_.size() && size <= source_.size() - offset; }

  Result<std::vector<u8>> body(const Section& section, const char* what) const {
    if (section.size > kMostTable) return damaged(fmt::format("its {} has {} bytes, allowed are {}", what, section.size, kMostTable));
    if (!within(section.offset, section.size)) return damaged(fmt::format("its {} is beyond its end", what));
    std::vector<u8> out(section.size);
    STASIS_TRY(source_.read(section.offset, out));
    return out;
  }

  Result<std::vector<Symbol>> collect(Bytes entries, Bytes names) const {
    constexpr u64 kLongest = 64 * kMiB, kMostNames = 512 * kMiB;
    std::vector<Symbol> out;
    u64 named = 0;
    for (std::size_t at = 0; at + kSymbolBytes <= entries.size(); at += kSymbolBytes) {
      const Bytes entry = entries.subspan(at, kSymbolBytes);
      const u32 name = field<u32>(entry, 0);
      const u8 type = entry[4] & 0xf;
      const u16 section = field<u16>(entry, 6);
      // Defined ones without a type, objects and functions; no constants.
      if (type > 2 || section == 0 || section == 0xfff1 || name >= names.size()) continue;
      const char* text = reinterpret_cast<const char*>(names.data()) + name;
      const std::size_t length = strnlen(text, std::min<std::size_t>(names.size() - name, kMostName));
      if (length == 0 || length == kMostName || name + length == names.size()) continue;  // no end
      named += length;
      if (out.size() >= kMostSymbols || named > kMostNames)
        return damaged(fmt::format("has more than {} symbols, or {} bytes of names", kMostSymbols, kMostNames));
      const u64 size = field<u64>(entry, 16);
      out.push_back({field<u64>(entry, 8), size > kLongest ? 0 : size, std::string(text, length)});
    }
    return out;
  }

  const snapshot::Source& source_;
  const std::string& object_;
  std::vector<Section> sections_;
};

}  // namespace

Result<Symbols> Symbols::from_elf(const snapshot::Source& source, const std::string& object) { return ElfFile(source, object).symbols(); }

}  // namespace stasis::inspect
