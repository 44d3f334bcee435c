// Matrix microkernels for AVX2. Same results, to the bit, as dot_scalar.h (read that first).
//
// MXFP4: twice an E2M1 value plus 12 is an unsigned code in 0..24. maddubs(code, activation) gives int16 sums of two
// products; eight of them are added per lane. Their sum could pass 32767, but after subtracting 12 * sum(activations of
// that lane) the true value lies within +-12*127*16 = 24384, so wrap-around int16 addition started at that correction
// (Acts.pair) is exact, and one madd by ones widens the whole block to int32.
//
// int8: maddubs(|w|, sign(a, w)) is at most 2*127*127 = 32258, so it never saturates, but leaves no room to add in int16.
#pragma once
#include "targets/operands.h"

namespace MOTET_NS {

constexpr int kMaxTokens = 4;
constexpr int kPanelTokens = 6;
constexpr int kPackedTokens = 6;
constexpr int kGroup = 4;

static inline __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
static inline __m256i four(const int8_t* p) {  // four activations in every dword
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}
static inline __m256i e2m1_codes() {
  return _mm256_broadcastsi128_si256(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
}

static void decode_mxfp4(const uint8_t* tile, int blocks, uint8_t* panel) {
  const __m256i codes = e2m1_codes(), low = _mm256_set1_epi8(15);
  for (int i = 0; i < blocks * 4; ++i)
    for (int h = 0; h < 2; ++h) {
      __m256i n = load256(tile + i * 64 + h * 32);
      __m256i* to = reinterpret_cast<__m256i*>(panel + i * 128 + h * 32);
      _mm256_storeu_si256(to, _mm256_shuffle_epi8(codes, _mm256_and_si256(n, low)));
      _mm256_storeu_si256(to + 2, _mm256_shuffle_epi8(codes, _mm256_and_si256(_mm256_srli_epi16(n, 4), low)));
    }
}

// acc += float(int32(sum)) * weight_scale * activation_scale for both halves of the tile
static inline F add_block(F acc, __m256i a, __m256i b, F weight_scale, float activation_scale) {
  F dot = {_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)};
  return vfma(vmul(dot, weight_scale), vset(activation_scale), acc);
}

struct PanelScope {
  PanelScope() {}
};
static int32_t start_of(motet::Kind kind, int32_t, int32_t pair) { return kind == motet::Kind::kMxfp4 ? pair : 0; }

static const uint8_t* decode(motet::Kind kind, const uint8_t* data, int blocks, uint8_t* to) {
  if (kind == motet::Kind::kInt8) return data;
  decode_mxfp4(data, blocks, to);
  return to;
}

// One tile times a whole group (missing tokens are zeros).
template <bool Mxfp4>
static void multiply_tile(const Codes& tile, Group g, int blocks, float* out) {
  const __m256i ones = _mm256_set1_epi16(1);
  const uint8_t* codes = tile.codes;
  for (int b = 0; b < blocks; ++b, codes += 512, g.q += kGroup * 32, g.scale += kGroup, g.start += kGroup) {
    __m256i sum[kGroup][2];
    for (int t = 0; t < kGroup; ++t) sum[t][0] = sum[t][1] = _mm256_set1_epi32(g.start[t]);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      const __m256i w0 = load256(codes + k * 64), w1 = load256(codes + k * 64 + 32);
      const __m256i m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
#pragma GCC unroll 4
      for (int t = 0; t < kGroup; ++t) {
        const __m256i a = four(g.q + t * 32 + k * 4);
        if (Mxfp4) {
          sum[t][0] = _mm256_add_epi16(sum[t][0], _mm256_maddubs_epi16(w0, a));
          sum[t][1] = _mm256_add_epi16(sum[t][1], _mm256_maddubs_epi16(w1, a));
        } else {
          const __m256i p0 = _mm256_maddubs_epi16(m0, _mm256_sign_epi8(a, w0)), p1 = _mm256_maddubs_epi16(m1, _mm256_sign_epi8(a, w1));
          sum[t][0] = _mm256_add_epi32(sum[t][0], _mm256_madd_epi16(p0, ones));
          sum[t][1] = _mm256_add_epi32(sum[t][1], _mm256_madd_epi16(p1, ones));
        }
      }
    }
    const F scale = vload(tile.scales + b * 16);
#pragma GCC unroll 4
    for (int t = 0; t < kGroup; ++t) {
      const __m256i lo = Mxfp4 ? _mm256_madd_epi16(sum[t][0], ones) : sum[t][0], hi = Mxfp4 ? _mm256_madd_epi16(sum[t][1], ones) : sum[t][1];
      vstore(out + t * kOut, add_block(vload(out + t * kOut), lo, hi, scale, g.scale[t]));
    }
  }
}

static void multiply(PanelScope&, motet::Kind kind, const Codes* tiles, int n_tiles, Group g, int blocks, int, Ahead, float* acc) {
  for (int i = 0; i < n_tiles; ++i)
    kind == motet::Kind::kMxfp4 ? multiply_tile<true>(tiles[i], g, blocks, acc + i * 16) : multiply_tile<false>(tiles[i], g, blocks, acc + i * 16);
}

template <int N>
static void mxfp4_direct(const uint8_t* tile, const uint8_t* scales, int blocks, const Token* tokens, float* out) {
  const __m256i ones = _mm256_set1_epi16(1), codes = e2m1_codes(), low = _mm256_set1_epi8(15);
  F acc[N];
  for (int t = 0; t < N; ++t) acc[t] = vset(0.0f);
  for (int b = 0; b < blocks; ++b, tile += 256) {
    __m256i sum[N][2];
    for (int t = 0; t < N; ++t) sum[t][0] = sum[t][1] = _mm256_set1_epi32(tokens[t].pair[b]);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      __m256i n0 = load256(tile + j * 64), n1 = load256(tile + j * 64 + 32);
      __m256i w00 = _mm256_shuffle_epi8(codes, _mm256_and_si256(n0, low));
      __m256i w01 = _mm256_shuffle_epi8(codes, _mm256_and_si256(n1, low));
      __m256i w10 = _mm256_shuffle_epi8(codes, _mm256_and_si256(_mm256_srli_epi16(n0, 4), low));
      __m256i w11 = _mm256_shuffle_epi8(codes, _mm256_and_si256(_mm256_srli_epi16(n1, 4), low));
#pragma GCC unroll 4
      for (int t = 0; t < N; ++t) {
        __m256i a0 = four(tokens[t].q + b * 32 + j * 8), a1 = four(tokens[t].q + b * 32 + j * 8 + 4);
        sum[t][0] = _mm256_add_epi16(sum[t][0], _mm256_maddubs_epi16(w00, a0));
        sum[t][1] = _mm256_add_epi16(sum[t][1], _mm256_maddubs_epi16(w01, a0));
        sum[t][0] = _mm256_add_epi16(sum[t][0], _mm256_maddubs_epi16(w10, a1));
        sum[t][1] = _mm256_add_epi16(sum[t][1], _mm256_maddubs_epi16(w11, a1));
      }
    }
    F scale = ve8m0_half(scales + b * 16);
#pragma GCC unroll 4
    for (int t = 0; t < N; ++t)
      acc[t] = add_block(acc[t], _mm256_madd_epi16(sum[t][0], ones), _mm256_madd_epi16(sum[t][1], ones), scale,
                         tokens[t].scale[b]);
  }
  for (int t = 0; t < N; ++t) vstore(out + t * kOut, acc[t]);
}

template <int N>
static void int8_direct(const uint8_t* tile, const uint8_t* scales, int blocks, const Token* tokens, float* out) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int t = 0; t < N; ++t) vstore(out + t * kOut, vset(0.0f));
  for (int b = 0; b < blocks; ++b, tile += 512) {
    __m256i sum[N][2];
    for (int t = 0; t < N; ++t) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      __m256i w0 = load256(tile + k * 64), w1 = load256(tile + k * 64 + 32);
      __m256i m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
#pragma GCC unroll 4
      for (int t = 0; t < N; ++t) {
        __m256i a = four(tokens[t].q + b * 32 + k * 4);
        __m256i p0 = _mm256_maddubs_epi16(m0, _mm256_sign_epi8(a, w0));
        __m256i p1 = _mm256_maddubs_epi16(m1, _mm256_sign_epi8(a, w1));
        sum[t][0] = _mm256_add_epi32(sum[t][0], _mm256_madd_epi16(p0, ones));
        sum[t][1] = _mm256_add_epi32(sum[t][1], _mm256_madd_epi16(p1, ones));
      }
    }
    F scale = vload_bf16(reinterpret_cast<const uint16_t*>(scales) + b * 16);
#pragma GCC unroll 4
    for (int t = 0; t < N; ++t)
      vstore(out + t * kOut, add_block(vload(out + t * kOut), sum[t][0], sum[t][1], scale, tokens[t].scale[b]));
  }
}

static long int8_work(long steps) {
  __m256i acc[8], w = _mm256_set1_epi8(3), a = _mm256_set1_epi8(1);
  for (auto& v : acc) v = _mm256_setzero_si256();
  for (long s = 0; s < steps; ++s) {
    asm volatile("" : "+x"(w), "+x"(a));  // opaque each step, or the compiler hoists the product
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) acc[i] = _mm256_add_epi16(acc[i], _mm256_maddubs_epi16(w, a));
    asm volatile("" : "+x"(acc[0]), "+x"(acc[1]), "+x"(acc[2]), "+x"(acc[3]), "+x"(acc[4]), "+x"(acc[5]), "+x"(acc[6]), "+x"(acc[7]));
  }
  for (int i = 1; i < 8; ++i) acc[0] = _mm256_add_epi16(acc[0], acc[i]);
  return _mm256_extract_epi16(acc[0], 0);
}
constexpr long kInt8OpsPerStep = 8L * 32 * 2;

static float bf16_work(long steps) {  // as float32: AVX2 has no bf16 products
  __m256 acc[8], w = _mm256_set1_ps(0.5f), a = _mm256_set1_ps(1.0f);
  for (auto& v : acc) v = _mm256_setzero_ps();
  for (long s = 0; s < steps; ++s) {
    asm volatile("" : "+x"(w), "+x"(a));
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) acc[i] = _mm256_fmadd_ps(acc[i], w, a);
  }
  for (int i = 1; i < 8; ++i) acc[0] = _mm256_add_ps(acc[0], acc[i]);
  return _mm256_cvtss_f32(acc[0]);
}
constexpr long kBf16OpsPerStep = 8L * 8 * 2;

static uint64_t read_work(const uint8_t* data, size_t bytes) {
  __m256i sum[4] = {};
  for (size_t i = 0; i + 128 <= bytes; i += 128)
    for (int k = 0; k < 4; ++k) sum[k] = _mm256_add_epi64(sum[k], load256(data + i + 32 * k));
  sum[0] = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(sum[0], 0));
}

}  // namespace MOTET_NS
