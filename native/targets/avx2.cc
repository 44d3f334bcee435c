// AVX2 with FMA: Intel Haswell (2013), AMD Zen (2017) and later.
#define MOTET_NS motet_avx2
#include <cstring>

#include "targets/vec_avx2.h"
#include "targets/dot_avx2.h"
#include "ops/all.h"

namespace motet {
const Ops& avx2_ops() { return MOTET_NS::table("avx2"); }
}  // namespace motet
