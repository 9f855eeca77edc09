// The version, from the build.
#include "base/version.hpp"

#ifndef STASIS_VERSION
#error "src/CMakeLists.txt defines STASIS_VERSION for this file"
#endif

namespace stasis {

std::string_view version() { return STASIS_VERSION; }

}  // namespace stasis
