// AVX-512 with AMX for products of many tokens: Intel Sapphire Rapids (2023) and later servers.
#define MOTET_NS motet_amx
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "targets/vec_avx512.h"
#include "targets/dot_avx512.h"
#include "targets/panel_amx.h"
#include "ops/all.h"

namespace motet {
const Ops& amx_ops() { return MOTET_NS::table("amx"); }
}  // namespace motet
