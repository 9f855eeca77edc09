// Emission of native thunks.
#include "cpu/soft/thunk.hpp"

#include <sys/mman.h>
#include <unistd.h>
#include <xbyak/xbyak.h>

#include <cstring>

#include "base/error.hpp"

namespace stasis::soft {
namespace {

// Opcodes times immediates: some 15,000 thunks at the very most, none longer than kLongest.
constexpr u64 kCapacity = 2 * kMiB, kLongest = 64;

void emit_instruction(Xbyak::CodeGenerator& c, const NormalForm& in) { c.db(in.bytes, in.size); }

void emit_load_flags(Xbyak::CodeGenerator& c, const Xbyak::Reg64& status) {
  c.mov(c.eax, c.ptr[status]);
  c.add(c.al, 0x7f);  // OF
  c.sahf();
}
void emit_store_flags(Xbyak::CodeGenerator& c, const Xbyak::Reg64& status) {
  c.lahf();
  c.seto(c.al);
  c.mov(c.ptr[status], c.ax);
}

void emit_string(Xbyak::CodeGenerator& c, const NormalForm& in) {
  c.mov(c.rax, c.ptr[c.rsi]);
  c.mov(c.rcx, c.ptr[c.rsi + 8]);
  c.mov(c.rdx, c.ptr[c.rsi + 16]);
  emit_instruction(c, in);
  c.mov(c.ptr[c.rsi + 8], c.rcx);
  emit_store_flags(c, c.rdi);
}

void emit_x87(Xbyak::CodeGenerator& c, const NormalForm& in, bool flags) {
  static constexpr u8 kRestore[] = {0x48, 0x0f, 0xae, 0x0f}, kSave[] = {0x48, 0x0f, 0xae, 0x07};  // [rdi]
  c.db(kRestore, sizeof(kRestore));
  if (flags) emit_load_flags(c, c.rdx);
  emit_instruction(c, in);
  if (flags) emit_store_flags(c, c.rdx);
  c.db(kSave, sizeof(kSave));
  c.fninit();  // nothing pending stays on the host
}

void emit(Xbyak::CodeGenerator& c, ThunkKind kind, const NormalForm& in) {
  switch (kind) {
    case ThunkKind::vector:
    case ThunkKind::to_general:
    case ThunkKind::from_general: emit_instruction(c, in); break;
    case ThunkKind::blend:
      emit_instruction(c, in);
      c.movaps(c.xmm0, c.xmm2);
      break;
    case ThunkKind::flags:
      emit_instruction(c, in);
      emit_store_flags(c, c.rdi);
      break;
    case ThunkKind::string: emit_string(c, in); break;
    case ThunkKind::mmx:
      c.movq(c.mm0, c.rdi);
      c.movq(c.mm1, c.rsi);
      emit_instruction(c, in);
      c.movq(c.rax, c.mm0);
      c.emms();
      break;
    case ThunkKind::mmx_to_general:
      c.movq(c.mm1, c.rsi);
      emit_instruction(c, in);
      c.emms();
      break;
    case ThunkKind::mmx_to_vector:
      c.movq(c.mm1, c.rdi);
      emit_instruction(c, in);
      c.emms();
      break;
    case ThunkKind::vector_to_mmx:
      emit_instruction(c, in);
      c.movq(c.rax, c.mm0);
      c.emms();
      break;
    case ThunkKind::x87: emit_x87(c, in, false); break;
    case ThunkKind::x87_flags: emit_x87(c, in, true); break;
  }
  c.ret();
}

u64 key_of(ThunkKind kind, const NormalForm& in) {
  u64 key = 0;
  std::memcpy(&key, in.bytes, sizeof(in.bytes));
  return key | static_cast<u64>(kind) << 56;
}

}  // namespace

ThunkCache::ThunkCache() {
  const int fd = memfd_create("thunks", MFD_CLOEXEC);
  STASIS_ASSERT(fd >= 0 && ftruncate(fd, kCapacity) == 0);
  void* const to_write = mmap(nullptr, kCapacity, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  void* const to_run = mmap(nullptr, kCapacity, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  close(fd);
  STASIS_ASSERT(to_write != MAP_FAILED && to_run != MAP_FAILED);
  writable_ = static_cast<u8*>(to_write);
  executable_ = static_cast<const u8*>(to_run);
}

ThunkCache::~ThunkCache() {
  munmap(writable_, kCapacity);
  munmap(const_cast<u8*>(executable_), kCapacity);
}

u64 ThunkCache::get(ThunkKind kind, const NormalForm& instruction) {
  u64& address = known_[key_of(kind, instruction)];
  if (address) return address;
  STASIS_ASSERT(used_ + kLongest <= kCapacity);
  Xbyak::CodeGenerator code(kLongest, writable_ + used_);
  emit(code, kind, instruction);
  address = reinterpret_cast<u64>(executable_ + used_);
  used_ += align_up(code.getSize(), 16);
  return address;
}

}  // namespace stasis::soft
