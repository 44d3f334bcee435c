// A logical vector of 16 floats in two AVX registers; same functions, same rounding as vec_scalar.h.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace MOTET_NS {

struct F { __m256 a, b; };

#define MOTET_BOTH(op, x, y) F{op((x).a, (y).a), op((x).b, (y).b)}
constexpr int kHeadsAtOnce = 2;  // rows of two accumulators each that fit the registers

static inline F vload(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void vstore(float* p, F x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
static inline F vset(float x) { __m256 v = _mm256_set1_ps(x); return {v, v}; }
static inline F vadd(F x, F y) { return MOTET_BOTH(_mm256_add_ps, x, y); }
static inline F vsub(F x, F y) { return MOTET_BOTH(_mm256_sub_ps, x, y); }
static inline F vmul(F x, F y) { return MOTET_BOTH(_mm256_mul_ps, x, y); }
static inline F vdiv(F x, F y) { return MOTET_BOTH(_mm256_div_ps, x, y); }
static inline F vfma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
static inline F vmax(F x, F y) { return MOTET_BOTH(_mm256_max_ps, x, y); }
static inline F vmin(F x, F y) { return MOTET_BOTH(_mm256_min_ps, x, y); }
static inline F vabs(F x) {
  __m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_and_ps(x.a, m), _mm256_and_ps(x.b, m)};
}
static inline F vround(F x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}
static inline F vkeep_ge(F x, F t, F a) {
  return {_mm256_and_ps(_mm256_cmp_ps(x.a, t.a, _CMP_GE_OQ), a.a), _mm256_and_ps(_mm256_cmp_ps(x.b, t.b, _CMP_GE_OQ), a.b)};
}
static inline __m256 scale2(__m256 x, __m256 n) {
  __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(x, _mm256_castsi256_ps(e));
}
static inline F vscale2(F x, F n) { return {scale2(x.a, n.a), scale2(x.b, n.b)}; }
static inline __m256 widen_bf16(__m128i h) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
static inline F vload_bf16(const uint16_t* p) {
  return {widen_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          widen_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
static inline __m256i round_bf16_bits(__m256 x) {
  __m256i u = _mm256_castps_si256(x);
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  return _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
}
static inline void vstore_bf16(uint16_t* p, F x) {
  __m256i packed = _mm256_packus_epi32(round_bf16_bits(x.a), round_bf16_bits(x.b));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
static inline void vload_bf16_pairs(const uint16_t* p, F& even, F& odd) {
  __m256i u = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16));
  __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  even = {_mm256_castsi256_ps(_mm256_slli_epi32(u, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(v, 16))};
  odd = {_mm256_castsi256_ps(_mm256_and_si256(u, high)), _mm256_castsi256_ps(_mm256_and_si256(v, high))};
}
static inline F ve8m0_half(const uint8_t* p) {
  __m128i s = _mm_subs_epu8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), _mm_set1_epi8(1));
  __m256i lo = _mm256_slli_epi32(_mm256_cvtepu8_epi32(s), 23);
  __m256i hi = _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(s, 8)), 23);
  return {_mm256_castsi256_ps(lo), _mm256_castsi256_ps(hi)};
}
static inline float vsum(F x) {
  __m256 s = _mm256_add_ps(x.a, x.b);
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
static inline float vtop(F x) {
  __m256 s = _mm256_max_ps(x.a, x.b);
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
static inline void vstore_int8(int8_t* p, F x) {
  __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
}
static inline F vload_int8(const int8_t* p) {
  __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(b, 8)))};
}
#undef MOTET_BOTH

}  // namespace MOTET_NS
