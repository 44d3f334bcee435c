// The form for many tokens (ops/packed.h) with vpdpbusd: 8 tokens x 32 rows, so that each broadcast feeds two products; float
// sums wait in the first cache level. Same results, to the bit, as dot_scalar.h.
#pragma once

namespace MOTET_NS {

constexpr int kPackedTokens = 9;
constexpr int kGroup = 8;
struct PanelScope {
  PanelScope() {}
};

static int32_t start_of(motet::Kind kind, int32_t sum, int32_t) { return (kind == motet::Kind::kMxfp4 ? -12 : -128) * sum; }

// Unsigned codes: twice the value + 12, or the int8 weight + 128.
static const uint8_t* decode(motet::Kind kind, const uint8_t* data, int blocks, uint8_t* to) {
  if (kind == motet::Kind::kInt8) {
    const __m512i flip = _mm512_set1_epi8(-128);
    for (int i = 0; i < blocks * 8; ++i) _mm512_storeu_si512(to + i * 64, _mm512_xor_si512(load512(data + i * 64), flip));
    return to;
  }
  const __m512i codes = e2m1_codes(), low = _mm512_set1_epi8(15);
  for (int i = 0; i < blocks * 4; ++i) {
    const __m512i n = load512(data + i * 64);
    _mm512_storeu_si512(to + i * 128, _mm512_shuffle_epi8(codes, _mm512_and_si512(n, low)));
    _mm512_storeu_si512(to + i * 128 + 64, _mm512_shuffle_epi8(codes, _mm512_and_si512(_mm512_srli_epi16(n, 4), low)));
  }
  return to;
}

template <int N, int T>
static void multiply_group(const Codes* tiles, Group g, int blocks, Ahead ahead, float* acc) {
  for (int b = 0; b < blocks; ++b, g.q += kGroup * 32, g.scale += kGroup, g.start += kGroup) {
    for (int i = 0; i < ahead.lines; ++i, ahead.at += 64) _mm_prefetch(reinterpret_cast<const char*>(ahead.at), _MM_HINT_T1);
    __m512i sum[N][T];
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t)
      for (int i = 0; i < T; ++i) sum[t][i] = _mm512_set1_epi32(g.start[t]);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      __m512i w[T];
      for (int i = 0; i < T; ++i) w[i] = load512(tiles[i].codes + b * 512 + k * 64);
#pragma GCC unroll 8
      for (int t = 0; t < N; ++t) {
        const __m512i a = four(g.q + t * 32 + k * 4);
        for (int i = 0; i < T; ++i) sum[t][i] = _mm512_dpbusd_epi32(sum[t][i], w[i], a);
      }
    }
    F scale[T];
    for (int i = 0; i < T; ++i) scale[i] = vload(tiles[i].scales + b * 16);
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t)
      for (int i = 0; i < T; ++i) {
        float* to = acc + t * kOut + i * 16;
        vstore(to, vfma(vmul(_mm512_cvtepi32_ps(sum[t][i]), scale[i]), vset(g.scale[t]), vload(to)));
      }
  }
}

static void multiply(PanelScope&, motet::Kind, const Codes* tiles, int n_tiles, Group g, int blocks, int tokens, Ahead ahead, float* acc) {
  if (n_tiles == 1) return multiply_group<8, 1>(tiles, g, blocks, ahead, acc);
  if (tokens <= 2) return multiply_group<2, 2>(tiles, g, blocks, ahead, acc);
  if (tokens <= 4) return multiply_group<4, 2>(tiles, g, blocks, ahead, acc);
  if (tokens <= 6) return multiply_group<6, 2>(tiles, g, blocks, ahead, acc);
  multiply_group<8, 2>(tiles, g, blocks, ahead, acc);
}

}  // namespace MOTET_NS
