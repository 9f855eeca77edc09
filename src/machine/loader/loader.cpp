// Which kind of kernel it is, and the way each kind is started.
#include "machine/loader/loader.hpp"

#include <fmt/format.h>

#include <array>

#include "base/log.hpp"
#include "machine/loader/bzimage.hpp"
#include "machine/loader/elf_kernel.hpp"
#include "machine/loader/linux64.hpp"
#include "machine/loader/lz4_payload.hpp"
#include "machine/loader/pvh.hpp"

namespace stasis {
namespace loader {
namespace {

Result<> check_command_line(const std::string& text, u64 most) {
  most = std::min(most, kCommandLineMost);
  if (text.size() > most)
    return fail(ErrorCode::usage, "cmdline", fmt::format("is {} bytes, this kernel takes up to {}", text.size(), most),
                "use a shorter --cmdline");
  if (text.find('\0') != std::string::npos)
    return fail(ErrorCode::usage, "cmdline", "has a zero byte, which would end it early", "leave it out");
  return {};
}

Result<LoadedKernel> load_elf(Bytes file, const BootImages& images, GuestMemory& memory, u64 rsdp) {
  STASIS_TRY_SET(ElfKernel kernel, parse_elf_kernel(file));
  STASIS_TRY(check_command_line(images.cmdline, kCommandLineMost));
  STASIS_TRY(check_fits(memory, kernel.extent.end, "kernel (ELF)", "it"));
  STASIS_TRY_SET(const Extent initrd, place_initrd(memory, images.initrd.size(), kernel.extent, GuestMemory::kHoleStart - 1));
  for (const ElfSegment& segment : kernel.segments) {
    put(memory, segment.address, segment.data);
    put_zeros(memory, {segment.address + segment.data.size(), segment.address + segment.memory_size});
  }
  put(memory, initrd.start, images.initrd);
  if (kernel.pvh_entry) {
    VcpuState vcpu = prepare_pvh(memory, images.cmdline, initrd, rsdp, *kernel.pvh_entry);
    return LoadedKernel{BootProtocol::pvh, std::move(kernel.banner), vcpu};
  }
  VcpuState vcpu = prepare_linux64(memory, {}, images.cmdline, initrd, rsdp, kernel.entry);
  return LoadedKernel{BootProtocol::linux64, std::move(kernel.banner), vcpu};
}

Result<LoadedKernel> load_bzimage(const BootImages& images, GuestMemory& memory, u64 rsdp) {
  STASIS_TRY_SET(BzImage image, parse_bzimage(images.kernel));
  STASIS_TRY(check_command_line(images.cmdline, image.command_line_most));
  if (Result<> fits = check_fits(memory, image.extent().end, "kernel (bzImage)", "it"); !fits) {
    // It unpacks itself beside its packed form, which takes more than it needs afterwards: with less memory than
    // that, the kernel inside is started directly. Only KASLR, which the unpacking code does, is lost.
    if (fits.error().code != ErrorCode::usage || !looks_like_lz4(image.payload)) return std::unexpected(std::move(fits).error());
    log::info("kernel: {} MiB of memory are too few for a bzImage to unpack itself; starting the kernel inside", memory.size() / kMiB);
    STASIS_TRY_SET(const std::vector<u8> inside, unpack_lz4(image.payload));
    return load_elf(inside, images, memory, rsdp);
  }
  STASIS_TRY_SET(const Extent initrd,
                 place_initrd(memory, images.initrd.size(), image.extent(), image.initrd_last_address));
  put(memory, image.load_address, image.kernel);
  put(memory, initrd.start, images.initrd);
  VcpuState vcpu = prepare_linux64(memory, image.setup_header, images.cmdline, initrd, rsdp, image.entry());
  return LoadedKernel{BootProtocol::linux64, std::move(image.banner), vcpu};
}

std::unexpected<Error> unknown_kind(Bytes file) {
  constexpr const char* kAllowed = "allowed are a Linux bzImage (vmlinuz) and an ELF kernel (vmlinux)";
  if (file.empty()) return fail(ErrorCode::bad_file, "kernel", fmt::format("is an empty file; {}", kAllowed), "name another file");
  struct Kind {
    std::array<u8, 2> magic;
    const char* text;
  };
  constexpr Kind kKinds[] = {{{0x1f, 0x8b}, "gzip data"}, {{0xfd, '7'}, "xz data"}, {{0x28, 0xb5}, "zstd data"},
                             {{'B', 'Z'}, "bzip2 data"},  {{'#', '!'}, "a script"}, {{'M', 'Z'}, "an EFI program"}};
  const char* kind = "of an unknown kind";
  for (const Kind& k : kKinds)
    if (file.size() >= 2 && std::equal(k.magic.begin(), k.magic.end(), file.begin())) kind = k.text;
  return fail(ErrorCode::bad_file, "kernel",
              fmt::format("is {} ({} bytes, starting with {:02x}); {}", kind, file.size(),
                          fmt::join(file.first(std::min<u64>(file.size(), 4)), " "), kAllowed),
              "unpack it first, or name another file");
}

}  // namespace
}  // namespace loader

Result<LoadedKernel> load_kernel(const BootImages& images, GuestMemory& memory, u64 rsdp) {
  using namespace loader;
  if (looks_like_elf(images.kernel)) return load_elf(images.kernel, images, memory, rsdp);
  if (looks_like_bzimage(images.kernel)) return load_bzimage(images, memory, rsdp);
  return unknown_kind(images.kernel);
}

}  // namespace stasis
