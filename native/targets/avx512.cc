// AVX-512 with VNNI and BF16: Intel Sapphire Rapids, AMD Zen 4 and later. With MOTET_EMULATE_AVX512 the intrinsics come
// from SIMDe, so that the arithmetic can be tested on a CPU without them.
#define MOTET_NS motet_avx512
#include <cstring>

#if MOTET_EMULATE_AVX512
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>
#else
#include <immintrin.h>
#endif

#include "targets/vec_avx512.h"
#include "targets/dot_avx512.h"
#include "ops/all.h"

namespace motet {
const Ops& avx512_ops() { return MOTET_NS::table("avx512"); }
}  // namespace motet
