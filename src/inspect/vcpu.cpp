// From the record of a vCPU to its registers.
#include "inspect/vcpu.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

namespace stasis::inspect {
namespace {

// Reads members of one map; remembers the first thing that is wrong.
class Members {
 public:
  Members(const cbor::Map& map, std::string where, std::string& problem) : map_(map), where_(std::move(where)), problem_(problem) {}

  template <class T>
  void number(const char* name, T& out) {
    const auto* value = required(name);
    if (!value) return;
    const u64* found = value->as<u64>();
    if (!found || *found > std::numeric_limits<T>::max()) return complain(name, "is no integer of its size");
    out = static_cast<T>(*found);
  }
  template <std::size_t N>
  void numbers(const char* name, std::array<u64, N>& out) {
    const auto* items = array(name, N);
    for (std::size_t i = 0; items && i < N; ++i) {
      const u64* found = (*items)[i].template as<u64>();
      if (!found) return complain(name, "holds something else than integers");
      out[i] = *found;
    }
  }
  template <std::size_t N, std::size_t Size>
  void registers(const char* name, std::array<std::array<u8, Size>, N>& out) {
    const auto* items = array(name, N);
    for (std::size_t i = 0; items && i < N; ++i) {
      const auto* bytes = (*items)[i].template as<cbor::ByteString>();
      if (!bytes || bytes->size() != Size) return complain(name, fmt::format("element {} is not {} bytes", i, Size));
      std::copy_n(bytes->begin(), Size, out[i].begin());
    }
  }
  std::optional<Members> inner(const char* name) {
    const auto* value = required(name);
    if (!value) return std::nullopt;
    const auto* map = value->as<cbor::Map>();
    if (!map) return complain(name, "is no record"), std::nullopt;
    return Members(*map, where_ + name + "/", problem_);
  }
  bool has(const char* name) const { return map_.find(name) != nullptr; }

 private:
  const cbor::Value* required(const char* name) {
    const auto* value = map_.find(name);
    if (!value) complain(name, "is not there");
    return value;
  }
  const cbor::Array* array(const char* name, std::size_t count) {
    const auto* value = required(name);
    if (!value) return nullptr;
    const auto* items = value->as<cbor::Array>();
    if (!items || items->size() != count) return complain(name, fmt::format("is no array of {}", count)), nullptr;
    return items;
  }
  void complain(const char* name, const std::string& what) {
    if (problem_.empty()) problem_ = fmt::format("field {}{} {}", where_, name, what);
  }

  const cbor::Map& map_;
  std::string where_;
  std::string& problem_;
};

void read_segment(Members& members, const char* name, Segment& out) {
  auto inner = members.inner(name);
  if (!inner) return;
  inner->number("selector", out.selector);
  inner->number("attributes", out.attributes);
  inner->number("limit", out.limit);
  inner->number("base", out.base);
}

void read_table(Members& members, const char* name, DescriptorTable& out) {
  auto inner = members.inner(name);
  if (!inner) return;
  inner->number("base", out.base);
  inner->number("limit", out.limit);
}

void read_fpu(Members& members, FloatingPoint& out) {
  auto inner = members.inner("fpu");
  if (!inner) return;
  inner->number("fcw", out.fcw);
  inner->number("fsw", out.fsw);
  inner->number("ftw", out.ftw);
  inner->number("fop", out.fop);
  inner->number("fip", out.fip);
  inner->number("fdp", out.fdp);
  inner->number("mxcsr", out.mxcsr);
  inner->registers("st", out.st);
  inner->registers("xmm", out.xmm);
}

void read_xsave(Members& members, ExtendedState& out) {
  auto inner = members.inner("xsave");
  if (!inner) return;
  inner->number("xcr0", out.xcr0);
  inner->number("in_use", out.in_use);
  inner->number("bndcfgu", out.bndcfgu);
  inner->number("bndstatus", out.bndstatus);
  inner->number("pkru", out.pkru);
  inner->registers("ymm_high", out.ymm_high);
  inner->registers("bounds", out.bounds);
  inner->numbers("opmask", out.opmask);
  inner->registers("zmm_high", out.zmm_high);
  inner->registers("zmm16_31", out.zmm16_31);
}

// N of "cpu/N".
std::optional<unsigned> number_of(std::string_view path) {
  if (!path.starts_with("cpu/")) return std::nullopt;
  path.remove_prefix(4);
  unsigned number = 0;
  const auto [end, error] = std::from_chars(path.data(), path.data() + path.size(), number);
  if (error != std::errc() || end != path.data() + path.size()) return std::nullopt;
  return number;
}

}  // namespace

Result<Vcpu> vcpu_from(const snapshot::PartRecord& record, const std::string& object) {
  Vcpu out;
  out.number = number_of(record.path).value_or(0);
  const auto* map = record.state.as<cbor::Map>();
  if (!map) return fail(ErrorCode::bad_file, object, fmt::format("{} is no record", record.path), "the file is damaged or not ours");
  std::string problem;
  Members members(*map, "", problem);
  members.numbers("gpr", out.gpr);
  for (auto [name, field] : {std::pair{"rip", &out.rip}, {"rflags", &out.rflags}, {"cr0", &out.cr0}, {"cr2", &out.cr2}, {"cr3", &out.cr3},
                             {"cr4", &out.cr4}, {"efer", &out.efer}, {"kernel_gs_base", &out.kernel_gs_base}})
    members.number(name, *field);
  for (auto [name, field] : {std::pair{"es", &out.es}, {"cs", &out.cs}, {"ss", &out.ss}, {"ds", &out.ds}, {"fs", &out.fs},
                             {"gs", &out.gs}, {"ldtr", &out.ldtr}, {"tr", &out.tr}})
    read_segment(members, name, *field);
  read_table(members, "gdtr", out.gdtr);
  read_table(members, "idtr", out.idtr);
  members.number("cpl", out.cpl);
  read_fpu(members, out.fpu);
  if (members.has("xsave")) read_xsave(members, out.xsave);
  if (!problem.empty())
    return fail(ErrorCode::bad_file, object, fmt::format("{}: {}", record.path, problem),
                fmt::format("this Stasis knows the fields of x86.vcpu; 'stasis snapshot show FILE {}' shows those of the file", record.path));
  return out;
}

Result<std::vector<Vcpu>> vcpus_of(const snapshot::Image& image, const std::string& object) {
  std::vector<Vcpu> out;
  for (const auto& part : image.parts) {
    if (!number_of(part.path)) continue;
    STASIS_TRY_SET(Vcpu vcpu, vcpu_from(part, object));
    out.push_back(std::move(vcpu));
  }
  if (out.empty()) return fail(ErrorCode::unsupported, object, "has no record cpu/0", "it was not written by a machine with processors");
  std::sort(out.begin(), out.end(), [](const Vcpu& a, const Vcpu& b) { return a.number < b.number; });
  return out;
}

Result<Vcpu> vcpu_of(const snapshot::Image& image, unsigned number, const std::string& object) {
  STASIS_TRY_SET(const std::vector<Vcpu> all, vcpus_of(image, object));
  for (const Vcpu& vcpu : all)
    if (vcpu.number == number) return vcpu;
  return fail(ErrorCode::not_found, object, fmt::format("has no vCPU {}", number),
              fmt::format("it has {} to {}", all.front().number, all.back().number));
}

}  // namespace stasis::inspect
