// A Linux bzImage's setup header, which may be hostile: every offset is checked before it is used.
#include "machine/loader/bzimage.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "machine/loader/linux64.hpp"

namespace stasis::loader {
namespace {

namespace bp = boot_params;

constexpr std::string_view kObject = "kernel (bzImage)";
constexpr const char* kDamaged = "the file is damaged; fetch or build it again";
constexpr const char* kOther = "take a 64-bit Linux kernel 3.8 or later, or its vmlinux";

constexpr u64 kSectorSize = 512, kUsualSetupSectors = 4, kParagraph = 16;
constexpr u64 kSetupSectors = 0x1f1, kSystemSize = 0x1f4, kKernelVersion = 0x20e, kInitrdMost = 0x22c, kRelocatable = 0x234,
              kLoadFlags64 = 0x236, kCommandLineSize = 0x238, kPayloadOffset = 0x248, kPayloadLength = 0x24c,
              kPreferredAddress = 0x258, kInitSize = 0x260, kHeaderEnd = 0x264;
constexpr u16 kOldestVersion = 0x020c, kKernel64 = 1;

// Text at `offset` up to its zero, when it is inside and printable.
std::string text_at(Bytes file, u64 offset, u64 most) {
  std::string out;
  for (u64 i = 0; i < most && offset + i < file.size(); ++i) {
    const u8 c = file[offset + i];
    if (c == 0) return out;
    if (c < 0x20 || c > 0x7e) return {};
    out += static_cast<char>(c);
  }
  return {};
}

Result<> check_protocol(Bytes file) {
  const u16 flag = value_at<u16>(file, bp::kBootFlag), version = value_at<u16>(file, bp::kVersion);
  if (flag != bp::kBootFlagValue) return bad_field(kObject, "boot_flag (at 0x1fe)", flag, "0xaa55", kDamaged);
  if (version < kOldestVersion)
    return fail(ErrorCode::unsupported, std::string(kObject),
                fmt::format("boot protocol is {}.{:02}, allowed is 2.12 and later", version >> 8, version & 0xff), kOther);
  if (!(value_at<u8>(file, bp::kLoadFlags) & bp::kLoadedHigh))
    return bad_field(kObject, "loadflags (at 0x211)", value_at<u8>(file, bp::kLoadFlags), "with bit 0 (LOADED_HIGH) set", kOther);
  if (!(value_at<u16>(file, kLoadFlags64) & kKernel64))
    return fail(ErrorCode::unsupported, std::string(kObject),
                fmt::format("xloadflags (at 0x236) is {:#x}, allowed is with bit 0 (XLF_KERNEL_64) set: this is no 64-bit kernel",
                            value_at<u16>(file, kLoadFlags64)),
                kOther);
  return {};
}

Result<> find_kernel(Bytes file, BzImage& out) {
  const u64 sectors = file[kSetupSectors] ? file[kSetupSectors] : kUsualSetupSectors;
  const u64 start = (sectors + 1) * kSectorSize;
  const u64 size = u64{value_at<u32>(file, kSystemSize)} * kParagraph;
  if (size <= 0x200) return bad_field(kObject, "syssize (at 0x1f4)", size / kParagraph, "more than 0x20", kDamaged);
  if (!holds(file, start, size))
    return fail(ErrorCode::bad_file, std::string(kObject),
                fmt::format("is {} bytes, its header (setup_sects {}, syssize {:#x}) asks for {}", file.size(), sectors,
                            size / kParagraph, start + size),
                "the file is cut short or damaged; fetch or build it again");
  out.kernel = file.subspan(start, size);
  const u64 payload = value_at<u32>(file, kPayloadOffset), payload_size = value_at<u32>(file, kPayloadLength);
  if (payload_size != 0 && holds(out.kernel, payload, payload_size)) out.payload = out.kernel.subspan(payload, payload_size);
  return {};
}

// The kernel runs at the preferred address or above, wherever it is loaded (boot.rst, init_size): a relocatable
// one moves itself up to it, so that loading it lower would save no memory.
Result<> find_place(Bytes file, BzImage& out) {
  out.load_address = value_at<u64>(file, kPreferredAddress);
  if (value_at<u8>(file, kRelocatable)) {
    const u32 alignment = value_at<u32>(file, bp::kKernelAlignment);
    if (!std::has_single_bit(alignment) || alignment < kPageSize || alignment > kGiB)
      return bad_field(kObject, "kernel_alignment (at 0x230)", alignment, "a power of two from 4 KiB to 1 GiB", kDamaged);
    if (out.load_address < GuestMemory::kHoleStart)
      out.load_address = align_up(std::max(out.load_address, kLowestKernelAddress), alignment);
  }
  if (out.load_address < kLowestKernelAddress || out.load_address >= GuestMemory::kHoleStart || out.load_address % kPageSize)
    return bad_field(kObject, "pref_address (at 0x258)", value_at<u64>(file, kPreferredAddress),
                     "whole pages from 0x100000 to 0xbfffffff", kDamaged);
  out.init_size = std::max<u64>(value_at<u32>(file, kInitSize), out.kernel.size());
  return {};
}

}  // namespace

bool looks_like_bzimage(Bytes file) {
  return holds(file, bp::kMagic, 4) && value_at<u32>(file, bp::kMagic) == bp::kMagicHdrS;
}

Result<BzImage> parse_bzimage(Bytes file) {
  if (!holds(file, 0, kHeaderEnd))
    return fail(ErrorCode::bad_file, std::string(kObject),
                fmt::format("is {} bytes, its header alone takes {}", file.size(), kHeaderEnd),
                "the file is cut short; fetch or build it again");
  STASIS_TRY(check_protocol(file));
  BzImage out;
  STASIS_TRY(find_kernel(file, out));
  STASIS_TRY(find_place(file, out));
  const u64 header_end = std::min<u64>(bp::kMagic + file[bp::kHeaderLength], bp::kSetupHeaderMost);
  if (header_end < kHeaderEnd)
    return bad_field(kObject, "header length (at 0x201)", file[bp::kHeaderLength], "0x62 or more", kDamaged);
  STASIS_ASSERT(holds(file, bp::kSetupHeader, header_end - bp::kSetupHeader));  // the kernel lies behind
  out.setup_header = file.subspan(bp::kSetupHeader, header_end - bp::kSetupHeader);
  out.initrd_last_address = value_at<u32>(file, kInitrdMost);
  out.command_line_most = value_at<u32>(file, kCommandLineSize);
  if (const u16 version = value_at<u16>(file, kKernelVersion)) out.banner = text_at(file, u64{version} + 0x200, 256);
  return out;
}

}  // namespace stasis::loader
