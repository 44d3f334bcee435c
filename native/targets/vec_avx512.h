// A logical vector of 16 floats in one AVX-512 register; same functions, same rounding as vec_scalar.h.
#pragma once
#include <cstdint>

namespace MOTET_NS {

typedef __m512 F;

constexpr int kHeadsAtOnce = 8;  // rows of two accumulators each that fit the registers

static inline F vload(const float* p) { return _mm512_loadu_ps(p); }
static inline void vstore(float* p, F x) { _mm512_storeu_ps(p, x); }
static inline F vset(float x) { return _mm512_set1_ps(x); }
static inline F vadd(F x, F y) { return _mm512_add_ps(x, y); }
static inline F vsub(F x, F y) { return _mm512_sub_ps(x, y); }
static inline F vmul(F x, F y) { return _mm512_mul_ps(x, y); }
static inline F vdiv(F x, F y) { return _mm512_div_ps(x, y); }
static inline F vfma(F x, F y, F z) { return _mm512_fmadd_ps(x, y, z); }
static inline F vmax(F x, F y) { return _mm512_max_ps(x, y); }
static inline F vmin(F x, F y) { return _mm512_min_ps(x, y); }
static inline F vabs(F x) { return _mm512_abs_ps(x); }
static inline F vround(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline F vkeep_ge(F x, F t, F a) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, t, _CMP_GE_OQ), a); }
static inline F vscale2(F x, F n) {
  __m512i e = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvttps_epi32(n), _mm512_set1_epi32(127)), 23);
  return _mm512_mul_ps(x, _mm512_castsi512_ps(e));
}
static inline F vload_bf16(const uint16_t* p) {
  __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
static inline void vstore_bf16(uint16_t* p, F x) {
  __m512i u = _mm512_castps_si512(x);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(r));
}
static inline void vload_bf16_pairs(const uint16_t* p, F& even, F& odd) {
  __m512i u = _mm512_loadu_si512(p);
  even = _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
  odd = _mm512_castsi512_ps(_mm512_and_si512(u, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
static inline F ve8m0_half(const uint8_t* p) {
  __m128i s = _mm_subs_epu8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), _mm_set1_epi8(1));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu8_epi32(s), 23));
}
static inline float vsum(F x) {
  __m256 s = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
static inline float vtop(F x) {
  __m256 s = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
static inline void vstore_int8(int8_t* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
}
static inline F vload_int8(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

}  // namespace MOTET_NS
