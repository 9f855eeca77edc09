// A stateful part of a machine, as the save/restore conductor sees it.
//
// Restoring has two passes: stage() parses aside and checks, touching nothing; only when
// every part of the machine agreed are the returned commits run, and then every settle().
#pragma once

#include <functional>

#include "state/codec.hpp"
#include "state/compat.hpp"

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
  // The same for a Stasis that knows the record up to `version`. None: `problems` names each field that forbids it.
  virtual std::optional<Written> capture_for(u16 version, const std::string& object, Problems& problems) const {
    return write_for(schema(), capture(), version, object, problems);
  }
  // Null, and `context.problems` grew: refused. The commit must run before the part is destroyed.
  virtual Commit stage(const cbor::Value& record, const LoadContext& context) = 0;
  virtual void reset() = 0;    // power-on state
  virtual void settle() = 0;   // derives lines, alarms and tables from the state; raises no new edge
};

// The state lives in `s_`; a device derives from this and says what follows from a change in settle().
template <HasLayout S>
class Stateful : public Part {
 public:
  using State = S;
  Schema schema() const override { return schema_of<S>(); }
  cbor::Value capture() const override { return save_record(s_); }
  std::optional<Written> capture_for(u16 version, const std::string& object, Problems& problems) const override {
    return save_for(s_, version, object, problems);
  }
  Commit stage(const cbor::Value& record, const LoadContext& context) override {
    S staged{};
    if (!load_state(staged, record, context)) return {};
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
    return load_nothing(kind_, record, context) ? [] {} : Commit{};
  }
  void reset() override {}
  void settle() override {}

 private:
  std::string kind_;
};

// For tests and tools: stage, commit and settle one part. Refused: all problems in one text.
Result<> restore_one(Part& part, const std::string& object, const cbor::Value& record, u16 version, const Schema* schema = nullptr);

// A live part for an older release (state/compat.hpp), reshaped by its own code where its shape changed since.
ForRelease write_for_release(const Release& release, const std::string& object, const Part& part, Problems& problems);

}  // namespace stasis::state
