// AVX-512 with VNNI and BF16: Intel Sapphire Rapids, AMD Zen 4 and later. With MOTET_EMULATE_AVX512 the intrinsics come
// from SIMDe, so that the arithmetic can be tested on a CPU without them.
#define MOTET_NS motet_avx512
#include <cstdint>
#include <cstring>

#if MOTET_EMULATE_AVX512
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>
// What SIMDe 0.7 lacks, one lane at a time.
#include <cmath>
template <class To, class From, class Lane>
static inline To lanes(From a, Lane f) {
  typename Lane::In in[16];
  typename Lane::Out out[16];
  static_assert(sizeof(in) == sizeof(a) && sizeof(out) == sizeof(To), "sixteen lanes on both sides");
  std::memcpy(in, &a, sizeof(in));
  for (int i = 0; i < 16; ++i) out[i] = f(in[i]);
  To r;
  std::memcpy(&r, out, sizeof(r));
  return r;
}
template <class I, class O, O (*F)(I)>
struct Lane {
  using In = I;
  using Out = O;
  O operator()(I x) const { return F(x); }
};
template <class I, class O>
static inline O cast_lane(I x) { return static_cast<O>(x); }
static inline int nearest_lane(float x) { return static_cast<int>(std::nearbyint(x)); }
#define _mm512_cvttps_epi32(a) lanes<simde__m512i>(a, Lane<float, int, cast_lane<float, int>>{})
#define _mm512_cvtps_epi32(a) lanes<simde__m512i>(a, Lane<float, int, nearest_lane>{})
#define _mm512_cvtepi32_ps(a) lanes<simde__m512>(a, Lane<int, float, cast_lane<int, float>>{})
#define _mm512_cvtepu16_epi32(a) lanes<simde__m512i>(a, Lane<uint16_t, int, cast_lane<uint16_t, int>>{})
#define _mm512_cvtepu8_epi32(a) lanes<simde__m512i>(a, Lane<uint8_t, int, cast_lane<uint8_t, int>>{})
#define _mm512_cvtepi32_epi16(a) lanes<simde__m256i>(a, Lane<int, int16_t, cast_lane<int, int16_t>>{})
static inline simde__m256 half_of(simde__m512 a, int i) {
  simde__m256 r;
  std::memcpy(&r, reinterpret_cast<const char*>(&a) + 32 * i, sizeof(r));
  return r;
}
#define _mm512_extractf32x8_ps(a, i) half_of(a, i)
#else
#include <immintrin.h>
#endif

#include "targets/vec_avx512.h"
#include "targets/dot_avx512.h"
#include "targets/panel_avx512.h"
#include "ops/all.h"

namespace motet {
const Ops& avx512_ops() { return MOTET_NS::table("avx512"); }
}  // namespace motet
