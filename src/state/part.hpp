// A stateful part of a machine, as the save/restore conductor sees it.
//
// Restoring has two passes: stage() parses aside and checks, touching nothing; only when
// every part of the machine agreed are the returned commits run, and then every settle().
#pragma once

#include <functional>

#include "state/codec.hpp"

namespace stasis::state {

class Part {
 public:
  using Commit = std::function<void()>;
  Part() = default;
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;
  virtual ~Part() = default;

  virtual Schema schema() const = 0;
  virtual cbor::Value capture() const = 0;  // changes nothing
  // Null, and `context.problems` grew: refused. The commit must run before the part is destroyed.
  virtual Commit stage(const cbor::Value& record, const LoadContext& context) = 0;
  virtual void reset() = 0;    // power-on state
  virtual void settle() = 0;   // derives lines, alarms and tables from the state; raises no new edge
};

namespace detail {
// A record as old as S::Previous is loaded as that and upgraded by the pure S::upgrade(Previous).
template <class S>
bool load_any_version(S& out, const cbor::Value& record, const LoadContext& context) {
  if constexpr (requires { typename S::Previous; }) {
    if (context.version <= S::Previous::layout().version) {
      typename S::Previous old{};
      if (!load_any_version(old, record, context)) return false;
      out = S::upgrade(old);
      return true;
    }
  }
  return load_record(out, record, "", context);
}
}  // namespace detail

// The state lives in `s_`; a device derives from this and says what follows from a change in settle().
template <HasLayout S>
class Stateful : public Part {
 public:
  using State = S;
  Schema schema() const override { return schema_of<S>(); }
  cbor::Value capture() const override { return save_record(s_); }
  Commit stage(const cbor::Value& record, const LoadContext& context) override {
    S staged{};
    if (!detail::load_any_version(staged, record, context)) return {};
    if (std::string wrong = check(staged); !wrong.empty()) {
      context.refuse(std::move(wrong));
      return {};
    }
    return [this, staged = std::move(staged), version = context.version]() mutable {
      s_ = std::move(staged);
      restored(version);
    };
  }
  void reset() override {
    s_ = {};
    settle();
  }
  void settle() override {}
  const S& state() const { return s_; }

 protected:
  // What no single field's range can say; empty when `staged` is consistent. Touches nothing.
  virtual std::string check(const S& staged) const { return (void)staged, std::string(); }
  // Called at commit with the version of the record; may complete fields that version lacked.
  virtual void restored(u16 from) { (void)from; }
  S s_{};
};

// A part that says it has nothing to save: its kind is recorded all the same.
class Stateless : public Part {
 public:
  explicit Stateless(std::string kind) : kind_(std::move(kind)) {}
  Schema schema() const override { return {.kind = kind_, .version = 1, .fields = {}}; }
  cbor::Value capture() const override { return cbor::Map{}; }
  Commit stage(const cbor::Value& record, const LoadContext& context) override {
    const cbor::Map* map = record.as<cbor::Map>();
    if (!map || !map->members().empty()) return context.refuse("holds fields, but this part has no state"), Commit{};
    return [] {};
  }
  void reset() override {}
  void settle() override {}

 private:
  std::string kind_;
};

// For tests and tools: stage, commit and settle one part. Refused: all problems in one text.
Result<> restore_one(Part& part, const std::string& object, const cbor::Value& record, u16 version);

}  // namespace stasis::state
