// An ELF kernel's headers, which may be hostile: every offset is checked before it is used.
#include "machine/loader/elf_kernel.hpp"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace stasis::loader {
namespace {

constexpr std::string_view kObject = "kernel (ELF)";
constexpr const char* kDamaged = "the file is damaged; fetch or build it again";
constexpr const char* kOther = "take the vmlinux or bzImage of a 64-bit x86 Linux";
constexpr u64 kMostSegments = 64;
constexpr u32 kPhys32Entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY

Result<Elf64_Ehdr> check_header(Bytes file) {
  if (!holds(file, 0, sizeof(Elf64_Ehdr)))
    return fail(ErrorCode::bad_file, std::string(kObject),
                fmt::format("is {} bytes, its header alone takes {}", file.size(), sizeof(Elf64_Ehdr)),
                "the file is cut short; fetch or build it again");
  const auto header = value_at<Elf64_Ehdr>(file, 0);
  if (header.e_ident[EI_CLASS] != ELFCLASS64)
    return bad_field(kObject, "EI_CLASS", header.e_ident[EI_CLASS], "0x2 (64-bit)", kOther);
  if (header.e_ident[EI_DATA] != ELFDATA2LSB)
    return bad_field(kObject, "EI_DATA", header.e_ident[EI_DATA], "0x1 (little-endian)", kOther);
  if (header.e_machine != EM_X86_64) return bad_field(kObject, "e_machine", header.e_machine, "0x3e (x86-64)", kOther);
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
    return bad_field(kObject, "e_type", header.e_type, "0x2 or 0x3 (executable)", kOther);
  if (header.e_phentsize != sizeof(Elf64_Phdr))
    return bad_field(kObject, "e_phentsize", header.e_phentsize, "0x38", kDamaged);
  if (header.e_phnum == 0 || header.e_phnum > kMostSegments)
    return bad_field(kObject, "e_phnum", header.e_phnum, fmt::format("1 to {:#x}", kMostSegments), kDamaged);
  if (!holds(file, header.e_phoff, u64{header.e_phnum} * sizeof(Elf64_Phdr)))
    return bad_field(kObject, "e_phoff", header.e_phoff, fmt::format("with all headers inside the {:#x} bytes of the file", file.size()),
                     "the file is cut short or damaged; fetch or build it again");
  return header;
}

Result<> check_inside(Bytes file, const Elf64_Phdr& segment, unsigned index) {
  if (holds(file, segment.p_offset, segment.p_filesz)) return {};
  return fail(ErrorCode::bad_file, std::string(kObject),
              fmt::format("segment {}: p_offset {:#x} and p_filesz {:#x} reach beyond the {:#x} bytes of the file", index,
                          segment.p_offset, segment.p_filesz, file.size()),
              "the file is cut short or damaged; fetch or build it again");
}

Result<> add_segment(Bytes file, const Elf64_Phdr& segment, unsigned index, ElfKernel& out) {
  if (segment.p_memsz == 0 && segment.p_filesz == 0) return {};
  STASIS_TRY(check_inside(file, segment, index));
  if (segment.p_filesz > segment.p_memsz)
    return bad_field(kObject, fmt::format("segment {}: p_filesz", index), segment.p_filesz,
                     fmt::format("at most p_memsz ({:#x})", segment.p_memsz), kDamaged);
  if (segment.p_paddr < kLowestKernelAddress || segment.p_paddr >= GuestMemory::kHoleStart)
    return bad_field(kObject, fmt::format("segment {}: p_paddr", index), segment.p_paddr, "0x100000 to 0xbfffffff", kDamaged);
  if (segment.p_memsz > GuestMemory::kHoleStart - segment.p_paddr)
    return bad_field(kObject, fmt::format("segment {}: p_memsz", index), segment.p_memsz,
                     fmt::format("at most {:#x} for a segment at {:#x}", GuestMemory::kHoleStart - segment.p_paddr, segment.p_paddr),
                     kDamaged);
  out.segments.push_back({segment.p_paddr, segment.p_memsz, file.subspan(segment.p_offset, segment.p_filesz)});
  const bool first = out.segments.size() == 1;
  out.extent.start = first ? segment.p_paddr : std::min(out.extent.start, segment.p_paddr);
  out.extent.end = std::max(out.extent.end, segment.p_paddr + segment.p_memsz);
  return {};
}

// Names and descriptions are padded to 4 bytes each (8 where the segment says so).
void read_notes(Bytes notes, u64 alignment, ElfKernel& out) {
  u64 at = 0;
  while (holds(notes, at, sizeof(Elf64_Nhdr))) {
    const auto note = value_at<Elf64_Nhdr>(notes, at);
    const u64 name = at + sizeof note, description = align_up(name + note.n_namesz, alignment);
    if (!holds(notes, name, note.n_namesz) || !holds(notes, description, note.n_descsz)) return;
    const bool is_xen = note.n_namesz == 4 && std::memcmp(notes.data() + name, "Xen", 4) == 0;
    if (is_xen && note.n_type == kPhys32Entry && note.n_descsz >= 4) out.pvh_entry = value_at<u32>(notes, description);
    at = align_up(description + note.n_descsz, alignment);
  }
}

bool inside_a_segment(const ElfKernel& kernel, u64 address) {
  return std::any_of(kernel.segments.begin(), kernel.segments.end(),
                     [&](const ElfSegment& s) { return address >= s.address && address - s.address < s.data.size(); });
}

std::string find_banner(const ElfKernel& kernel) {
  constexpr std::string_view kStart = "Linux version ";
  for (const ElfSegment& segment : kernel.segments) {
    const auto* found = static_cast<const char*>(
        ::memmem(segment.data.data(), segment.data.size(), kStart.data(), kStart.size()));
    if (!found) continue;
    const char* const end = reinterpret_cast<const char*>(segment.data.data() + segment.data.size());
    const char* const start = found + kStart.size();
    const char* const most = start + std::min<std::ptrdiff_t>(end - start, 256);
    return {start, std::find_if(start, most, [](char c) { return c < 0x20 || c > 0x7e; })};
  }
  return {};
}

}  // namespace

bool looks_like_elf(Bytes file) { return holds(file, 0, SELFMAG) && std::memcmp(file.data(), ELFMAG, SELFMAG) == 0; }

Result<ElfKernel> parse_elf_kernel(Bytes file) {
  STASIS_TRY_SET(const Elf64_Ehdr header, check_header(file));
  ElfKernel out;
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    const auto segment = value_at<Elf64_Phdr>(file, header.e_phoff + i * sizeof(Elf64_Phdr));
    if (segment.p_type == PT_LOAD) STASIS_TRY(add_segment(file, segment, i, out));
    if (segment.p_type == PT_NOTE) {
      STASIS_TRY(check_inside(file, segment, i));
      read_notes(file.subspan(segment.p_offset, segment.p_filesz), segment.p_align == 8 ? 8 : 4, out);
    }
  }
  if (out.segments.empty())
    return fail(ErrorCode::bad_file, std::string(kObject), "has no segment of type PT_LOAD", kOther);
  out.entry = header.e_entry;
  if (out.pvh_entry && !inside_a_segment(out, *out.pvh_entry))
    return bad_field(kObject, "the PVH note's entry", *out.pvh_entry, "an address inside a loaded segment", kDamaged);
  if (!out.pvh_entry && !inside_a_segment(out, out.entry))
    return bad_field(kObject, "e_entry", out.entry, "a physical address inside a loaded segment", kOther);
  out.banner = find_banner(out);
  return out;
}

}  // namespace stasis::loader
