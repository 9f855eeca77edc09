// Which Stasis this is.
#pragma once

#include <string_view>

namespace stasis {

std::string_view version();  // "0.1.0"; the one of CMakeLists.txt

}  // namespace stasis
