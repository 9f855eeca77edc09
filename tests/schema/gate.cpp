// What the layouts in this tree, against tests/golden/schema.lock, do to snapshots that exist: a line for each that differs.
#include <cstdio>

#include <contract.hpp>
#include "kinds.hpp"

int main() {
  using namespace stasis;
  std::string now;
  const schema::Kinds kinds;
  for (const schema::Kind& kind : kinds.all()) now += state::lock_text(kind.schema);
  int status = 0;
  for (const state::Verdict& verdict : state::judge(contract::read_text(contract::golden_folder() / "schema.lock"), now)) {
    std::puts(verdict.line().c_str());
    if (verdict.change > state::Change::safe) status = 1;
  }
  return status;
}
