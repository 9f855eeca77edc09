// Writing for an older Stasis: which releases can be written for, and what their readers need.
#pragma once

#include "base/error.hpp"
#include "snapshot/image.hpp"

namespace stasis::snapshot {

// Makes `image` one that the Stasis of that release reads. Errors: usage (no such release, naming those that there are),
// unsupported (a field that it cannot hold).
Result<> fit_to_release(Image& image, const std::string& release);

}  // namespace stasis::snapshot
