// The portable target: no instruction set beyond the compiler's default.
#define MOTET_NS motet_scalar
#include "targets/vec_scalar.h"
#include "targets/dot_scalar.h"
#include "ops/all.h"

namespace motet {
const Ops& scalar_ops() { return MOTET_NS::table("scalar"); }
}  // namespace motet
