// stasis snapshot memory: bytes of a saved guest by virtual or physical address.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <memory>

#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/hex_dump.hpp"
#include "cli/output.hpp"
#include "cli/snapshot_file.hpp"
#include "host/terminal.hpp"

namespace stasis::cli {
namespace {

constexpr u64 kDefaultLength = 256, kPiece = kMiB, kMostJson = 64 * kMiB;

struct MemoryOptions {
  OpenWords open;
  std::string file, virtual_address, physical_address, symbols, length;
  int vcpu = -1;
  bool binary = false, json = false;
};

std::optional<u64> number_from(std::string_view text) {
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  if (hex) text.remove_prefix(2);
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, hex ? 16 : 10);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct Place {
  u64 address = 0;
  u64 length = kDefaultLength;  // where none is asked for
};

// "jiffies", "init_task+0x10".
Result<Place> place_of_symbol(const MemoryOptions& options, const inspect::PhysicalMemory& memory, const inspect::AddressSpace& space) {
  const std::string& text = options.virtual_address;
  if (options.symbols.empty())
    return fail(ErrorCode::usage, "--virtual", fmt::format("'{}' is no number", text), "0x… is hexadecimal; the name of a symbol needs --symbols FILE");
  STASIS_TRY_SET(const inspect::Symbols symbols, load_symbols(options.symbols));
  const std::size_t plus = text.find('+');
  const std::string name = text.substr(0, plus);
  const auto offset = plus == text.npos ? 0 : number_from(std::string_view(text).substr(plus + 1));
  if (!offset) return fail(ErrorCode::usage, "--virtual", fmt::format("'{}' has no number after '+'", text), "write SYMBOL+0x10");
  const inspect::Symbol* symbol = symbols.find(name);
  if (!symbol) return fail(ErrorCode::not_found, options.symbols, fmt::format("has no symbol '{}'", name), "names are as in the guest's /proc/kallsyms");
  const u64 slide = inspect::slide_of(symbols, memory, space).value_or(0);
  return Place{symbol->address + slide + *offset, *offset < symbol->size ? symbol->size - *offset : kDefaultLength};
}

Result<Place> place_of(const MemoryOptions& options, const inspect::PhysicalMemory& memory, const inspect::AddressSpace& space) {
  const bool physical = !options.physical_address.empty();
  const std::string& text = physical ? options.physical_address : options.virtual_address;
  Place out;
  if (const auto number = number_from(text)) {
    out.address = *number;
  } else if (physical) {
    return fail(ErrorCode::usage, "--physical", fmt::format("'{}' is no number", text), "0x… is hexadecimal");
  } else {
    STASIS_TRY_SET(out, place_of_symbol(options, memory, space));
  }
  if (options.length.empty()) return out;
  const auto length = number_from(options.length);
  if (!length || *length == 0) return fail(ErrorCode::usage, "LEN", fmt::format("'{}' is no number of bytes above 0", options.length), "0x… is hexadecimal");
  out.length = *length;
  return out;
}

Result<> read(const MemoryOptions& options, const inspect::PhysicalMemory& memory, const inspect::AddressSpace& space, u64 address, MutableBytes out,
              const std::string& object) {
  if (options.physical_address.empty()) return inspect::read_virtual(memory, space, address, out, object);
  if (memory.read(address, out)) return {};
  std::string ranges;
  for (const auto& range : memory.ranges()) ranges += fmt::format("{}{:#x}-{:#x}", ranges.empty() ? "" : ", ", range.address, range.address + range.size - 1);
  return fail(ErrorCode::not_found, object, fmt::format("physical addresses {:#x}-{:#x} are not all RAM", address, address + (out.size() - 1)),
              "RAM is at " + ranges);
}

Result<> check(const MemoryOptions& options) {
  if (options.virtual_address.empty() == options.physical_address.empty())
    return fail(ErrorCode::usage, "snapshot memory", "needs one of --virtual and --physical", "see 'stasis snapshot memory --help'");
  if (options.binary && options.json) return fail(ErrorCode::usage, "--binary", "does not go with --json", "choose one");
  if (options.binary && host::is_terminal(STDOUT_FILENO))
    return fail(ErrorCode::usage, "--binary", "would write raw bytes to the terminal", "redirect standard output to a file or a pipe");
  return {};
}

Result<> memory(const MemoryOptions& options) {
  STASIS_TRY(check(options));
  STASIS_TRY_SET(const auto snapshot, open_snapshot(options.file, options.open));
  STASIS_TRY_SET(const auto ram, load_ram(snapshot, false));
  const inspect::PhysicalMemory memory(ram.source());
  const std::string object = object_of(snapshot);
  inspect::AddressSpace space;
  if (options.physical_address.empty()) {
    STASIS_TRY_SET(const inspect::Vcpu vcpu, choose_vcpu(snapshot, options.vcpu));
    STASIS_TRY_SET(space, inspect::address_space_of(vcpu, memory, object));
  }
  STASIS_TRY_SET(const Place place, place_of(options, memory, space));
  if (options.json && place.length > kMostJson)
    return fail(ErrorCode::usage, "LEN", fmt::format("is {}, at most {} go with --json", place.length, kMostJson), "use --binary");
  if (place.address + (place.length - 1) < place.address)
    return fail(ErrorCode::usage, "LEN", fmt::format("{} bytes at {:#x} go beyond the last address", place.length, place.address), "ask for fewer");
  // All of it first: a script shall not get half of what it asked for.
  std::vector<u8> piece(std::min(place.length, kPiece));
  const auto each_piece = [&](auto use) -> Result<> {
    for (u64 done = 0; done < place.length; done += piece.size()) {
      const MutableBytes part = MutableBytes(piece).first(std::min<u64>(piece.size(), place.length - done));
      STASIS_TRY(read(options, memory, space, place.address + done, part, object));
      use(place.address + done, Bytes(part));
    }
    return {};
  };
  STASIS_TRY(each_piece([](u64, Bytes) {}));
  if (options.json) {
    std::string hex;
    STASIS_TRY(each_piece([&](u64, Bytes bytes) { hex += fmt::format("{:02x}", fmt::join(bytes, "")); }));
    return print(fmt::format("{{\"address\": {}, \"length\": {}, \"bytes\": \"{}\"}}\n", place.address, place.length, hex)), Result<>{};
  }
  HexDump dump;
  STASIS_TRY(each_piece([&](u64 address, Bytes bytes) {
    print(options.binary ? std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()) : dump.lines(address, bytes));
  }));
  if (!options.binary) print(dump.end());
  return {};
}

}  // namespace

void add_snapshot_memory(CLI::App& group, int& status) {
  auto* command = group.add_subcommand("memory", "Bytes of the guest's memory, by virtual or physical address");
  const auto options = std::make_shared<MemoryOptions>();
  command->add_option("FILE", options->file, "The snapshot")->required();
  command->add_option("LEN", options->length, "How many bytes; default: the symbol's size, else 256");
  command->add_option("--virtual", options->virtual_address, "ADDRESS, or SYMBOL or SYMBOL+OFFSET with --symbols")->type_name("ADDRESS");
  command->add_option("--physical", options->physical_address, "ADDRESS as the guest's hardware sees it")->type_name("ADDRESS");
  command->add_option("--vcpu", options->vcpu, "Whose page tables; default: the first vCPU in 64-bit mode")->check(CLI::NonNegativeNumber);
  command->add_option("--symbols", options->symbols, "System.map, a saved /proc/kallsyms, or an ELF file with symbols")->type_name("FILE");
  command->add_flag("--binary", options->binary, "The bytes themselves, for a file or a pipe");
  add_open_options(*command, options->open);
  command->add_flag("--json", options->json, "For scripts");
  command->footer("An address that is not mapped is an error that names the page table level at which the walk ended.\n"
                  "Examples:\n"
                  "  stasis snapshot memory web.stasis --virtual 0xffffffff82000000 64\n"
                  "  stasis snapshot memory web.stasis --virtual linux_banner --symbols System.map\n"
                  "  stasis snapshot memory web.stasis --physical 0x1000 4096 --binary > page");
  command->callback([options, &status] {
    const auto done = memory(*options);
    if (done) return;
    print_error(done.error(), options->json);
    status = status_of(done.error());
  });
}

}  // namespace stasis::cli
