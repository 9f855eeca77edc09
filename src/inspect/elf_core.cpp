// The frame of an ELF core (System V ABI, chapters 4 and 5), and RAM with holes.
#include "inspect/elf_core.hpp"

#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/file_descriptor.hpp"

namespace stasis::inspect {
namespace {

constexpr u64 kPagesPerStep = 1024;

template <class T>
void append(std::vector<u8>& out, const T& value) {
  const auto* from = reinterpret_cast<const u8*>(&value);
  out.insert(out.end(), from, from + sizeof value);
}

Elf64_Phdr load_segment(u64 address, u64 physical, u64 size, u64 file_offset, bool writable, bool executable) {
  Elf64_Phdr out{};
  out.p_type = PT_LOAD;
  out.p_flags = PF_R | (writable ? PF_W : 0u) | (executable ? PF_X : 0u);
  out.p_offset = file_offset;
  out.p_vaddr = address;
  out.p_paddr = physical;
  out.p_filesz = out.p_memsz = size;
  out.p_align = kPageSize;
  return out;
}

// Ascending by virtual address; file offsets as if RAM began at 0.
std::vector<Elf64_Phdr> segments_of(const PhysicalMemory& memory, const AddressSpace& space, const Mappings& mappings) {
  std::vector<Elf64_Phdr> out;
  const auto add_run = [&](const Run& run) {
    out.push_back(load_segment(run.address, run.physical, run.size, *memory.offset_of(run.physical), run.writable, run.executable));
  };
  const auto kernel = std::find_if(mappings.runs.begin(), mappings.runs.end(), [](const Run& run) { return run.address >> 63; });
  std::for_each(mappings.runs.begin(), kernel, add_run);
  if (space.levels)  // else they are the runs
    for (const auto& range : memory.ranges())
      out.push_back(load_segment(kPhysicalWindow + range.address, range.address, range.size, range.offset, true, true));
  std::for_each(kernel, mappings.runs.end(), add_run);
  return out;
}

Elf64_Ehdr header_of(u64 program_headers) {
  Elf64_Ehdr out{};
  std::memcpy(out.e_ident, ELFMAG, SELFMAG);
  out.e_ident[EI_CLASS] = ELFCLASS64;
  out.e_ident[EI_DATA] = ELFDATA2LSB;
  out.e_ident[EI_VERSION] = EV_CURRENT;
  out.e_type = ET_CORE;
  out.e_machine = EM_X86_64;
  out.e_version = EV_CURRENT;
  out.e_ehsize = sizeof(Elf64_Ehdr);
  out.e_phentsize = sizeof(Elf64_Phdr);
  out.e_phoff = sizeof(Elf64_Ehdr);
  out.e_phnum = static_cast<Elf64_Half>(std::min<u64>(program_headers, PN_XNUM));
  if (out.e_phnum == PN_XNUM) {  // the number is in the one section header
    out.e_phoff += sizeof(Elf64_Shdr);
    out.e_shoff = sizeof(Elf64_Ehdr);
    out.e_shentsize = sizeof(Elf64_Shdr);
    out.e_shnum = 1;
  }
  return out;
}

}  // namespace

CorePlan plan_core(const std::vector<Vcpu>& vcpus, const PhysicalMemory& memory, const AddressSpace& space, const WalkLimits& limits) {
  const Mappings mappings = mappings_of(memory, space, limits);
  std::vector<Elf64_Phdr> loads = segments_of(memory, space, mappings);
  const std::vector<u8> notes = core_notes(vcpus);
  const u64 headers = loads.size() + 1;
  const Elf64_Ehdr header = header_of(headers);

  CorePlan out;
  out.segments = loads.size();
  out.left_out = mappings.left_out;
  const u64 notes_offset = header.e_phoff + headers * sizeof(Elf64_Phdr);
  out.ram_offset = align_up(notes_offset + notes.size(), kPageSize);
  out.file_bytes = out.ram_offset + memory.size();
  append(out.head, header);
  if (header.e_shnum) {
    Elf64_Shdr first{};
    first.sh_info = static_cast<Elf64_Word>(headers);
    append(out.head, first);
  }
  Elf64_Phdr note{};
  note.p_type = PT_NOTE;
  note.p_offset = notes_offset;
  note.p_filesz = notes.size();
  note.p_align = 4;
  append(out.head, note);
  for (Elf64_Phdr& load : loads) {
    load.p_offset += out.ram_offset;
    append(out.head, load);
  }
  out.head.insert(out.head.end(), notes.begin(), notes.end());
  return out;
}

Result<> write_ram(int fd, u64 offset, const PhysicalMemory& memory, const std::string& object, snapshot::SaveProgress* progress) {
  if (::ftruncate(fd, static_cast<off_t>(offset + memory.size())) != 0) return fail_errno(object, "giving the file its length", errno);
  const u64 pages = memory.pages();
  for (u64 page = 0; page < pages;) {
    if (!memory.present(page)) {
      ++page;
      continue;
    }
    u64 end = page + 1;
    while (end < pages && end - page < kPagesPerStep && memory.present(end)) ++end;
    if (progress && !progress->step(page * kPageSize, memory.size())) return fail(ErrorCode::cancelled, object, "was cancelled");
    STASIS_TRY(write_all_at(fd, {memory.page(page), (end - page) * kPageSize}, offset + page * kPageSize, object));
    page = end;
  }
  return {};
}

}  // namespace stasis::inspect
