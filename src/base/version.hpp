// The version of this program, as snapshots and `stasis version` tell it.
#pragma once

#include <string_view>

namespace stasis {
inline constexpr std::string_view kVersion = STASIS_VERSION;
}
