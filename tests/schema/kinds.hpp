// Every record kind that a snapshot may hold, with a way to load and save one.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "machine/board.hpp"

namespace stasis::schema {

struct Kind {
  state::Schema schema;
  cbor::Value sample;  // a record of it
  // Loads and saves again; none: refused, and the context knows why.
  std::function<std::optional<cbor::Value>(const cbor::Value& record, const state::LoadContext& context)> load_and_save;
};

// Taken from a board with every device that there is, so that no kind can be left out.
class Kinds {
 public:
  Kinds();
  const std::vector<Kind>& all() const { return kinds_; }

 private:
  template <class S>
  void add_struct(const S& sample, std::function<std::string(const S&)> check = {});
  void add_part(state::Part& part);
  std::unique_ptr<Board> board_;
  std::vector<Kind> kinds_;  // by kind
};

}  // namespace stasis::schema
