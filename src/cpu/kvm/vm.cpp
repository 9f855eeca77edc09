// The machine's part of KVM's interface (Linux Documentation/virt/kvm/api.rst).
#include "cpu/kvm/vm.hpp"

#include "cpu/kvm/kvm_abi.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace stasis::kvm {
namespace {

constexpr u64 kTssAddress = 0xfeff'd000, kIdentityMapAddress = 0xfeff'c000;  // three pages and one, in the hole

Result<> enable(const Handle& vm, std::string_view name, u32 capability, u64 argument) {
  kvm_enable_cap request{};
  request.cap = capability;
  request.args[0] = argument;
  STASIS_TRY(vm.call(name, KVM_ENABLE_CAP, &request));
  return {};
}

}  // namespace

Result<Vm> Vm::create(const System& system, GuestMemory& memory) {
  STASIS_TRY_SET(const long fd, system.device.call_value("KVM_CREATE_VM", KVM_CREATE_VM));
  Vm vm(system, memory, Handle(system.kernel, static_cast<int>(fd)));
  STASIS_TRY(vm.handle_.call_value("KVM_SET_TSS_ADDR", KVM_SET_TSS_ADDR, kTssAddress));
  u64 identity = kIdentityMapAddress;
  STASIS_TRY(vm.handle_.call("KVM_SET_IDENTITY_MAP_ADDR", KVM_SET_IDENTITY_MAP_ADDR, &identity));
  STASIS_TRY(enable(vm.handle_, "KVM_CAP_SPLIT_IRQCHIP", KVM_CAP_SPLIT_IRQCHIP, kPins));
  STASIS_TRY(enable(vm.handle_, "KVM_CAP_X2APIC_API", KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK));
  if (system.exception_payload) STASIS_TRY(enable(vm.handle_, "KVM_CAP_EXCEPTION_PAYLOAD", KVM_CAP_EXCEPTION_PAYLOAD, 1));
  if (system.pmu_switch) STASIS_TRY(enable(vm.handle_, "KVM_CAP_PMU_CAPABILITY", KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE));
  if (system.msr_exits) STASIS_TRY(vm.take_wall_clock());
  STASIS_TRY(vm.set_memory(false));
  return vm;
}

// A guest's writes to the MSRs of kvmclock's wall clock come out, for KVM would answer with the host's time of day.
Result<> Vm::take_wall_clock() {
  STASIS_TRY(enable(handle_, "KVM_CAP_X86_USER_SPACE_MSR", KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER));
  std::array<u8, 8> refused{};  // a clear bit: not KVM's. The kernel reads whole words
  kvm_msr_filter filter{};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  for (std::size_t i = 0; i < kWallClockMsrs.size(); ++i)
    filter.ranges[i] = {.flags = KVM_MSR_FILTER_WRITE, .nmsrs = 1, .base = kWallClockMsrs[i], .bitmap = refused.data()};
  STASIS_TRY(handle_.call("KVM_X86_SET_MSR_FILTER", KVM_X86_SET_MSR_FILTER, &filter));
  return {};
}

Result<> Vm::set_memory(bool log) {
  u32 slot = 0;
  for (const GuestMemory::Range& range : memory_->ranges()) {
    kvm_userspace_memory_region region{.slot = slot++, .flags = log ? u32{KVM_MEM_LOG_DIRTY_PAGES} : 0u, .guest_phys_addr = range.address,
                                       .memory_size = range.size, .userspace_addr = reinterpret_cast<u64>(memory_->host() + range.offset)};
    STASIS_TRY(handle_.call("KVM_SET_USER_MEMORY_REGION", KVM_SET_USER_MEMORY_REGION, &region));
  }
  return {};
}

Result<> Vm::send_message(u64 address, u32 data) {
  kvm_msi message{};
  message.address_lo = static_cast<u32>(address);
  message.address_hi = static_cast<u32>(address >> 32);
  message.data = data;
  const long sent = handle_.ask(KVM_SIGNAL_MSI, &message);
  if (sent < 0 && sent != -EPERM) return fail_errno("kvm", "KVM_SIGNAL_MSI", static_cast<int>(-sent));
  return {};  // EPERM: the guest addressed a processor that is not there or not on; such a message is lost
}

Result<> Vm::set_routes(std::span<const Route> pins) {
  if (std::ranges::equal(pins, pins_)) return {};
  pins_.assign(pins.begin(), pins.end());
  return write_routes();
}

Result<> Vm::write_routes() {
  std::vector<std::pair<u32, Route>> all;
  for (u32 pin = 0; pin < pins_.size(); ++pin)
    if (pins_[pin].address != 0) all.emplace_back(pin, pins_[pin]);
  all.insert(all.end(), messages_.begin(), messages_.end());
  std::vector<u8> bytes(sizeof(kvm_irq_routing) + all.size() * sizeof(kvm_irq_routing_entry));
  auto* const table = reinterpret_cast<kvm_irq_routing*>(bytes.data());
  table->nr = static_cast<u32>(all.size());
  auto* const entries = reinterpret_cast<kvm_irq_routing_entry*>(bytes.data() + sizeof(kvm_irq_routing));
  for (std::size_t i = 0; i < all.size(); ++i) {
    entries[i].gsi = all[i].first;
    entries[i].type = KVM_IRQ_ROUTING_MSI;
    entries[i].u.msi.address_lo = static_cast<u32>(all[i].second.address);
    entries[i].u.msi.address_hi = static_cast<u32>(all[i].second.address >> 32);
    entries[i].u.msi.data = all[i].second.data;
  }
  STASIS_TRY(handle_.call("KVM_SET_GSI_ROUTING", KVM_SET_GSI_ROUTING, table));
  return {};
}

Result<> Vm::connect_irqfd(int event_fd, u32 gsi, Route message) {
  STASIS_ASSERT(gsi >= kPins);
  messages_.emplace_back(gsi, message);
  STASIS_TRY(write_routes());
  kvm_irqfd request{};
  request.fd = static_cast<u32>(event_fd);
  request.gsi = gsi;
  STASIS_TRY(handle_.call("KVM_IRQFD", KVM_IRQFD, &request));
  return {};
}

Result<> Vm::connect_ioeventfd(int event_fd, u64 address, u32 size, bool port) {
  kvm_ioeventfd request{};
  request.fd = event_fd;
  request.addr = address;
  request.len = size;
  request.flags = port ? KVM_IOEVENTFD_FLAG_PIO : 0u;
  STASIS_TRY(handle_.call("KVM_IOEVENTFD", KVM_IOEVENTFD, &request));
  return {};
}

Result<Vm::ClockReading> Vm::clock() const {
  kvm_clock_data data{};
  STASIS_TRY(handle_.call("KVM_GET_CLOCK", KVM_GET_CLOCK, &data));
  return ClockReading{.ns = data.clock, .host_tsc = data.flags & KVM_CLOCK_HOST_TSC ? data.host_tsc : 0};
}

Result<> Vm::set_clock_ns(u64 value) {
  kvm_clock_data data{};
  data.clock = value;
  STASIS_TRY(handle_.call("KVM_SET_CLOCK", KVM_SET_CLOCK, &data));
  return {};
}

Result<> Vm::log_dirty(bool on) { return set_memory(on); }

Result<> Vm::collect_dirty() {
  u32 slot = 0;
  for (const GuestMemory::Range& range : memory_->ranges()) {
    std::vector<u64> bits((range.size / kPageSize + 63) / 64);
    kvm_dirty_log request{};
    request.slot = slot++;
    request.dirty_bitmap = bits.data();
    STASIS_TRY(handle_.call("KVM_GET_DIRTY_LOG", KVM_GET_DIRTY_LOG, &request));
    memory_->mark_pages(range.offset / kPageSize, bits);
  }
  return {};
}

}  // namespace stasis::kvm
