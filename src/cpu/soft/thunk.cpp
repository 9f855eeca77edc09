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
constexpr u64 kCapacity = 2 * kMiB, kLongest = 128;

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

// x87 instructions on memory by address register, and on the top of the stack.
void emit_x87_load(Xbyak::CodeGenerator& c, const Xbyak::Reg64& from) { c.db(0x28db | static_cast<u64>(from.getIdx()) << 8, 2); }
void emit_x87_store(Xbyak::CodeGenerator& c, const Xbyak::Reg64& to) { c.db(0x38db | static_cast<u64>(to.getIdx()) << 8, 2); }
void emit_x87_drop(Xbyak::CodeGenerator& c) { c.db(0xd8dd, 2); }
void emit_x87_status(Xbyak::CodeGenerator& c) { c.db(0xe0df, 2); }

void emit_quick(Xbyak::CodeGenerator& c, ThunkKind kind, const NormalForm& in) {
  const bool compares = kind == ThunkKind::x87_compare || kind == ThunkKind::x87_compare_flags;
  const bool two = compares || kind == ThunkKind::x87_first || kind == ThunkKind::x87_second;
  if (two) emit_x87_load(c, c.rsi);
  if (kind != ThunkKind::x87_load) emit_x87_load(c, c.rdi);
  emit_instruction(c, in);
  if (kind == ThunkKind::x87_compare_flags) emit_store_flags(c, c.r8);
  emit_x87_status(c);
  switch (kind) {
    case ThunkKind::x87_load:
    case ThunkKind::x87_unary: emit_x87_store(c, c.rcx); break;
    case ThunkKind::x87_first: emit_x87_store(c, c.rcx), emit_x87_drop(c); break;
    case ThunkKind::x87_second: emit_x87_drop(c), emit_x87_store(c, c.rcx); break;
    case ThunkKind::x87_test: emit_x87_drop(c); break;
    case ThunkKind::x87_compare:
    case ThunkKind::x87_compare_flags: emit_x87_drop(c), emit_x87_drop(c); break;
    default: break;
  }
  c.ret();
}

void emit(Xbyak::CodeGenerator& c, ThunkKind kind, const NormalForm& in, const NormalForm& quick) {
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
    default: emit_x87(c, in, kind == ThunkKind::x87_compare_flags); break;
  }
  c.ret();
  if (!quick.size) return;
  while (c.getSize() < kQuickOffset) c.int3();
  emit_quick(c, kind, quick);
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

u64 ThunkCache::get(ThunkKind kind, const NormalForm& instruction, const NormalForm& quick) {
  u64& address = known_[key_of(kind, instruction)];
  if (address) return address;
  STASIS_ASSERT(used_ + kLongest <= kCapacity);
  Xbyak::CodeGenerator code(kLongest, writable_ + used_);
  emit(code, kind, instruction, quick);
  address = reinterpret_cast<u64>(executable_ + used_);
  used_ += align_up(code.getSize(), 16);
  return address;
}

}  // namespace stasis::soft
