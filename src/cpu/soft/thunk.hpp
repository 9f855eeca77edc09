// Native thunks: one x87, MMX or SSE instruction, re-encoded on fixed registers, as a function of the host.
//
// The caller fetches operands (registers, memory, all checks) and stores results; a thunk only computes. So one
// thunk serves an opcode with a given immediate, whatever registers or addresses the guest named.
#pragma once

#include <emmintrin.h>

#include <unordered_map>

#include "base/types.hpp"

namespace stasis::soft {

// What surrounds the instruction; the registers it must have been rewritten to.
enum class ThunkKind : u8 {
  vector,          // op xmm0, xmm1          VectorCode
  blend,           // op xmm2, xmm1, <xmm0>  BlendCode
  flags,           // op xmm0, xmm1          FlagsCode
  string,          // PCMPxSTRx xmm0, xmm1   StringCode
  to_general,      // op rax, xmm1           ToGeneralCode
  from_general,    // op xmm0, rdi           FromGeneralCode
  mmx,             // op mm0, mm1            MmxCode
  mmx_to_general,  // op rax, mm1            MmxCode
  mmx_to_vector,   // op xmm0, mm1           FromGeneralCode
  vector_to_mmx,   // op mm0, xmm1           ToGeneralCode
  x87,             // op [rsi]               X87Code: around it FXRSTOR64 and FXSAVE64 of the image
  x87_flags,       // the same, with the status flags going in and out
  // The same as x87 with, kQuickOffset behind it, a quick form on copies of what it uses: X87QuickCode
  x87_load,        // op [rdx]: pushes
  x87_store,       // ST(0) on the stack, op [rdx] pops it
  x87_unary,       // ST(0) on the stack, op [rdx] or none: changes it
  x87_first,       // ST(0), ST(i) on the stack, op st0, st1: changes ST(0)
  x87_second,      // the same, op st1, st0: changes ST(i)
  x87_test,        // ST(0) on the stack, op [rdx] or none: sets conditions
  x87_compare,     // ST(0), ST(i) on the stack, op st0, st1: sets conditions
  x87_compare_flags,  // the same for status flags
};
inline constexpr u64 kQuickOffset = 64;

using VectorCode = __m128i (*)(__m128i dst, __m128i src);
using BlendCode = __m128i (*)(__m128i mask, __m128i src, __m128i dst);
using FlagsCode = void (*)(__m128i dst, __m128i src, u16* status);
// general: RAX, RCX, RDX in their slots; the result is an XMM0 for the mask forms.
using StringCode = __m128i (*)(__m128i dst, __m128i src, u16* status, u64* general);
using ToGeneralCode = u64 (*)(__m128i dst, __m128i src);
using FromGeneralCode = __m128i (*)(__m128i dst, u64 src);
using MmxCode = u64 (*)(u64 dst, u64 src);
using X87Code = void (*)(void* image, void* memory, u16* status);
// Returns FSW, in which flags of earlier runs may still be set; the x87 stack is empty before and after.
using X87QuickCode = u16 (*)(const void* first, const void* second, void* memory, void* result, u16* status);

// An instruction in that form, at most 7 bytes: prefix, REX, 0F 3A, opcode, ModRM, immediate.
struct NormalForm {
  u8 bytes[7] = {};
  u8 size = 0;
  void add(u8 byte) { bytes[size++] = byte; }
};

// Emits each thunk once. Code is written through one mapping and run through another; no page is both.
class ThunkCache {
 public:
  ThunkCache();
  ~ThunkCache();
  ThunkCache(const ThunkCache&) = delete;
  ThunkCache& operator=(const ThunkCache&) = delete;

  u64 get(ThunkKind kind, const NormalForm& instruction) { return get(kind, instruction, {}); }  // address of the function
  u64 get(ThunkKind kind, const NormalForm& instruction, const NormalForm& quick);

 private:
  u8* writable_ = nullptr;
  const u8* executable_ = nullptr;
  u64 used_ = 0;
  std::unordered_map<u64, u64> known_;  // kind and bytes -> address
};

}  // namespace stasis::soft
