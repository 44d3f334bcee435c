// Matrix microkernels for AVX-512 VNNI. Same results, to the bit, as dot_scalar.h (read that first).
//
// vpdpbusd takes unsigned weights and signed activations: MXFP4 codes are offset by 12 (twice the value + 12), int8
// weights by 128, and the accumulator starts at minus the offset times the sum of the block's activations.
#pragma once
#include "targets/operands.h"

namespace MOTET_NS {

constexpr int kMaxTokens = 8;
constexpr int kPanelTokens = 12;

static inline __m512i load512(const void* p) { return _mm512_loadu_si512(p); }
static inline __m512i four(const int8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}
static inline __m512i e2m1_codes() {
  return _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
}

// Weights come from memory in order. Reading further ahead than the hardware does, across page borders too, is worth a
// fifth of the rate (docs/log.md); the second cache level is the place to wait in.
constexpr int kAhead = 4096;
static inline void ahead(const uint8_t* p, int bytes) {
  for (int i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(p + kAhead + i), _MM_HINT_T1);
}

template <int N>
static void mxfp4_direct(const uint8_t* tile, const uint8_t* scales, int blocks, const Token* tokens, float* out) {
  const __m512i codes = e2m1_codes(), low = _mm512_set1_epi8(15);
  F acc[N];
  for (int t = 0; t < N; ++t) acc[t] = vset(0.0f);
  for (int b = 0; b < blocks; ++b, tile += 256) {
    ahead(tile, 256);
    __m512i sum[N];
    for (int t = 0; t < N; ++t) sum[t] = _mm512_set1_epi32(-12 * tokens[t].sum[b]);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      __m512i n = load512(tile + j * 64);
      __m512i w0 = _mm512_shuffle_epi8(codes, _mm512_and_si512(n, low));
      __m512i w1 = _mm512_shuffle_epi8(codes, _mm512_and_si512(_mm512_srli_epi16(n, 4), low));
#pragma GCC unroll 8
      for (int t = 0; t < N; ++t) {
        sum[t] = _mm512_dpbusd_epi32(sum[t], w0, four(tokens[t].q + b * 32 + j * 8));
        sum[t] = _mm512_dpbusd_epi32(sum[t], w1, four(tokens[t].q + b * 32 + j * 8 + 4));
      }
    }
    F scale = ve8m0_half(scales + b * 16);
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t)
      acc[t] = vfma(vmul(_mm512_cvtepi32_ps(sum[t]), scale), vset(tokens[t].scale[b]), acc[t]);
  }
  for (int t = 0; t < N; ++t) vstore(out + t * kOut, acc[t]);
}

template <int N>
static void int8_direct(const uint8_t* tile, const uint8_t* scales, int blocks, const Token* tokens, float* out) {
  const __m512i flip = _mm512_set1_epi8(-128);
  F acc[N];
  for (int t = 0; t < N; ++t) acc[t] = vset(0.0f);
  for (int b = 0; b < blocks; ++b, tile += 512) {
    ahead(tile, 512);
    __m512i sum[N];
    for (int t = 0; t < N; ++t) sum[t] = _mm512_set1_epi32(-128 * tokens[t].sum[b]);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      __m512i w = _mm512_xor_si512(load512(tile + k * 64), flip);
#pragma GCC unroll 8
      for (int t = 0; t < N; ++t) sum[t] = _mm512_dpbusd_epi32(sum[t], w, four(tokens[t].q + b * 32 + k * 4));
    }
    F scale = vload_bf16(reinterpret_cast<const uint16_t*>(scales) + b * 16);
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t)
      acc[t] = vfma(vmul(_mm512_cvtepi32_ps(sum[t]), scale), vset(tokens[t].scale[b]), acc[t]);
  }
  for (int t = 0; t < N; ++t) vstore(out + t * kOut, acc[t]);
}

static long int8_work(long steps) {
  __m512i acc[8], w = _mm512_set1_epi8(3), a = _mm512_set1_epi8(1);
  for (auto& v : acc) v = _mm512_setzero_si512();
  for (long s = 0; s < steps; ++s) {
#if !MOTET_EMULATE_AVX512
    asm volatile("" : "+v"(w), "+v"(a));
#endif
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) acc[i] = _mm512_dpbusd_epi32(acc[i], w, a);
  }
  for (int i = 1; i < 8; ++i) acc[0] = _mm512_add_epi32(acc[0], acc[i]);
  return _mm_cvtsi128_si32(_mm512_castsi512_si128(acc[0]));
}
constexpr long kInt8OpsPerStep = 8L * 64 * 2;

static float bf16_work(long steps) {
#if MOTET_EMULATE_AVX512
  return static_cast<float>(steps);  // no speed to measure
#else
  __m512 acc[8];
  __m512i bits = _mm512_set1_epi16(0x3f80);  // 1.0
  for (auto& v : acc) v = _mm512_setzero_ps();
  for (long s = 0; s < steps; ++s) {
    asm volatile("" : "+v"(bits));
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) acc[i] = _mm512_dpbf16_ps(acc[i], reinterpret_cast<__m512bh>(bits), reinterpret_cast<__m512bh>(bits));
  }
  for (int i = 1; i < 8; ++i) acc[0] = _mm512_add_ps(acc[0], acc[i]);
  return _mm512_cvtss_f32(acc[0]);
#endif
}
constexpr long kBf16OpsPerStep = 8L * 32 * 2;

static uint64_t read_work(const uint8_t* data, size_t bytes) {
  __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
  for (size_t i = 0; i + 256 <= bytes; i += 256) {
    ahead(data + i, 256);
    for (int k = 0; k < 4; ++k) sum[k] = _mm512_add_epi64(sum[k], load512(data + i + 64 * k));
  }
  sum[0] = _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3]));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(_mm512_castsi512_si128(sum[0])));
}

}  // namespace MOTET_NS
