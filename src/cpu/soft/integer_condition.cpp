// CMOVcc and SETcc.
#include <utility>

#include "cpu/soft/integer.hpp"

namespace stasis::soft {
namespace {

// The source is read in any case, and a 32-bit destination loses its upper half in any case.
template <class T, unsigned kCondition>
struct MoveIf {
  static bool run(Cpu& cpu, const Op* op, T value) {
    const u8 dst = op->dst;
    cpu.set_reg<T>(dst, condition<kCondition>(cpu.status) ? value : cpu.reg<T>(dst));
    return true;
  }
};
template <unsigned kCondition>
struct SetIf {
  static u8 value(Cpu& cpu, const Op*) { return condition<kCondition>(cpu.status); }
  static u8 run(Cpu& cpu, const Op*, u8) { return condition<kCondition>(cpu.status); }
};

using Conditions = std::make_integer_sequence<unsigned, 16>;

template <class T, class Address, unsigned... kCondition>
Handler move_from_memory(unsigned which, std::integer_sequence<unsigned, kCondition...>) {
  constexpr Handler kHandlers[] = {OnLoad<T, Address, MoveIf<T, kCondition>>::handle...};
  return kHandlers[which];
}
template <class T, unsigned... kCondition>
Handler move_from_register(unsigned which, std::integer_sequence<unsigned, kCondition...>) {
  constexpr Handler kHandlers[] = {on_source<T, MoveIf<T, kCondition>>...};
  return kHandlers[which];
}
template <class Address, unsigned... kCondition>
Handler set_memory(unsigned which, std::integer_sequence<unsigned, kCondition...>) {
  constexpr Handler kHandlers[] = {OnStore<u8, Address, SetIf<kCondition>>::handle...};
  return kHandlers[which];
}
template <unsigned... kCondition>
Handler set_register(unsigned which, std::integer_sequence<unsigned, kCondition...>) {
  constexpr Handler kHandlers[] = {on_register<u8, SetIf<kCondition>>...};
  return kHandlers[which];
}

Handler choose_move(const Decoded& in, Op& op, unsigned which) {
  return by_wide(in.operands[0].size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    op.dst = register_offset(in.operands[0].reg.value);
    const ZydisDecodedOperand& from = in.operands[1];
    if (is_memory(from)) {
      return by_address_cold(in, from, op, [which](auto a) { return move_from_memory<T, typename decltype(a)::type>(which, Conditions{}); });
    }
    op.src = register_offset(from.reg.value);
    return move_from_register<T>(which, Conditions{});
  });
}
Handler choose_set(const Decoded& in, Op& op, unsigned which) {
  const ZydisDecodedOperand& to = in.operands[0];
  if (is_memory(to)) {
    return by_address_cold(in, to, op, [which](auto a) { return set_memory<typename decltype(a)::type>(which, Conditions{}); });
  }
  op.dst = register_offset(to.reg.value);
  return set_register(which, Conditions{});
}

}  // namespace

Bound bind_condition(const Decoded& in, Op& op) {
  // 0F 40+cc and 0F 90+cc: the condition is in the opcode.
  const unsigned which = in.instruction.opcode & 15;
  switch (in.instruction.meta.category) {
    case ZYDIS_CATEGORY_CMOV: return bound(op, choose_move(in, op, which));
    case ZYDIS_CATEGORY_SETCC: return bound(op, choose_set(in, op, which));
    default: return Bound::no;
  }
}

}  // namespace stasis::soft
