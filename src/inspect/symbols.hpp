// The symbols of a guest's kernel: from System.map, /proc/kallsyms or an ELF .symtab, by name and by address.
#pragma once

#include <string>
#include <vector>

#include "inspect/page_walk.hpp"
#include "snapshot/reader.hpp"

namespace stasis::inspect {

struct Symbol {
  u64 address = 0, size = 0;  // size: as the file says it, up to 64 MiB, else up to the next symbol, at most kMostGuessedSize
  std::string name;
};
inline constexpr u64 kMostGuessedSize = kMiB;
inline constexpr std::size_t kMostSymbols = 1 << 24;  // of a file

class Symbols {
 public:
  // Either kind of file, told by its first bytes. Damaged or not ours: `bad_file`, in one sentence.
  static Result<Symbols> load(const snapshot::Source& source, const std::string& object);
  static Result<Symbols> from_text(std::string_view text, const std::string& object);
  static Result<Symbols> from_elf(const snapshot::Source& source, const std::string& object);
  static Symbols from_list(std::vector<Symbol> symbols);  // in any order; sizes of 0 are guessed

  const std::vector<Symbol>& all() const { return all_; }  // ascending by address
  const Symbol* find(std::string_view name) const;
  const Symbol* at(u64 address) const;  // the one that the address lies in, or null
  // "name+0x12/0x80", or empty.
  std::string place(u64 address) const;

 private:
  std::vector<Symbol> all_;
  std::vector<u32> by_name_;
};

// The kernel may run elsewhere than it was linked (KASLR). Finds by how much, from where the guest's linux_banner is;
// empty where that cannot be told: no such symbol, or it is nowhere where this kernel could be.
std::optional<u64> slide_of(const Symbols& symbols, const PhysicalMemory& memory, const AddressSpace& space);

}  // namespace stasis::inspect
