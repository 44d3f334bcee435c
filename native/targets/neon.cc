// NEON: every aarch64 CPU.
#define MOTET_NS motet_neon
#include <cstring>

#include "targets/vec_neon.h"
#include "targets/dot_neon.h"
#include "ops/all.h"

namespace motet {
const Ops& neon_ops() { return MOTET_NS::table("neon"); }
}  // namespace motet
