// Matrix microkernels in plain C++: the readable twin of dot_avx2.h and dot_avx512.h, and the
// frame around dot_neon.h, which brings its own block_dot, decode_mxfp4 and int8_work.
//
// Each computes one tile of 16 rows for N tokens. For every block of 32 columns the integer dot product is exact; then
//   acc = fma(float(dot) * weight_scale, activation_scale, acc), block after block.
// That order is the same in every form and on every target, so a row's bits never depend on the batch around it.
#pragma once
#include "targets/operands.h"

namespace MOTET_NS {

constexpr int kMaxTokens = 4;       // tokens a microkernel takes at once
constexpr int kPanelTokens = 6;     // from this many tokens on, decode a float tile once and reuse it
constexpr int kPackedTokens = 6;    // from this many tokens on, int8 products take the form in packed.h
constexpr int kGroup = 4;           // tokens gathered together for it

#if !MOTET_OWN_BLOCK_DOT
static const int8_t kE2M1Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// MXFP4 tile -> int8 codes of twice the value, [block][8][16 rows][4]
static void decode_mxfp4(const uint8_t* tile, int blocks, uint8_t* panel) {
  for (int b = 0; b < blocks; ++b)
    for (int j = 0; j < 4; ++j)
      for (int i = 0; i < 64; ++i) {
        uint8_t byte = tile[b * 256 + j * 64 + i];
        panel[b * 512 + j * 128 + i] = static_cast<uint8_t>(kE2M1Doubled[byte & 15]);
        panel[b * 512 + j * 128 + 64 + i] = static_cast<uint8_t>(kE2M1Doubled[byte >> 4]);
      }
}

static inline F block_dot(const int8_t* w, const int8_t* q) {  // w [8][16][4]
  F r;
  for (int row = 0; row < 16; ++row) {
    int32_t dot = 0;
    for (int k = 0; k < 32; ++k) dot += w[(k / 4) * 64 + row * 4 + k % 4] * q[k];
    r.v[row] = static_cast<float>(dot);
  }
  return r;
}
#endif

struct PanelScope {  // what a target sets up around a panel
  PanelScope() {}
};

static int32_t start_of(motet::Kind, int32_t, int32_t) { return 0; }

// Codes of `blocks` blocks, in `to` unless the tile holds them already.
static const uint8_t* decode(motet::Kind kind, const uint8_t* data, int blocks, uint8_t* to) {
  if (kind == motet::Kind::kInt8) return data;
  decode_mxfp4(data, blocks, to);
  return to;
}

// acc [tokens][32] += the blocks of one or two tiles times a group
static void multiply(PanelScope&, motet::Kind, const Codes* tiles, int n_tiles, Group g, int blocks, int tokens, Ahead, float* acc) {
  for (int i = 0; i < n_tiles; ++i)
    for (int b = 0; b < blocks; ++b)
      for (int t = 0; t < tokens; ++t) {
        float* to = acc + t * kOut + i * 16;
        F dot = block_dot(reinterpret_cast<const int8_t*>(tiles[i].codes) + b * 512, g.q + (b * kGroup + t) * 32);
        vstore(to, vfma(vmul(dot, vload(tiles[i].scales + b * 16)), vset(g.scale[b * kGroup + t]), vload(to)));
      }
}

template <int N>
static void mxfp4_direct(const uint8_t* tile, const uint8_t* scales, int blocks, const Token* tokens, float* out) {
  for (int t = 0; t < N; ++t) vstore(out + t * kOut, vset(0.0f));
  uint8_t panel[512];
  for (int b = 0; b < blocks; ++b) {
    decode_mxfp4(tile + b * 256, 1, panel);
    F scale = ve8m0_half(scales + b * 16);
    for (int t = 0; t < N; ++t) {
      F dot = block_dot(reinterpret_cast<const int8_t*>(panel), tokens[t].q + b * 32);
      vstore(out + t * kOut, vfma(vmul(dot, scale), vset(tokens[t].scale[b]), vload(out + t * kOut)));
    }
  }
}

template <int N>
static void int8_direct(const uint8_t* tile, const uint8_t* scales, int blocks, const Token* tokens, float* out) {
  for (int t = 0; t < N; ++t) {
    F acc = vset(0.0f);
    for (int b = 0; b < blocks; ++b) {
      F dot = block_dot(reinterpret_cast<const int8_t*>(tile) + b * 512, tokens[t].q + b * 32);
      F scale = vload_bf16(reinterpret_cast<const uint16_t*>(scales) + b * 16);
      acc = vfma(vmul(dot, scale), vset(tokens[t].scale[b]), acc);
    }
    vstore(out + t * kOut, acc);
  }
}

#if !MOTET_OWN_BLOCK_DOT
static long int8_work(long steps) {
  int32_t acc[16] = {};
  for (long s = 0; s < steps; ++s)
    for (int i = 0; i < 16; ++i) acc[i] += static_cast<int8_t>(s + i) * static_cast<int8_t>(i);
  long total = 0;
  for (int v : acc) total += v;
  return total;
}
constexpr long kInt8OpsPerStep = 2 * 16;
#endif

static float bf16_work(long steps) {
  float acc[16] = {}, w = 0.5f, x = 1.0f;
  for (long s = 0; s < steps; ++s)
    for (int i = 0; i < 16; ++i) acc[i] = acc[i] * w + x;
  float total = 0;
  for (float v : acc) total += v;
  return total;
}
constexpr long kBf16OpsPerStep = 2 * 16;

static uint64_t read_work(const uint8_t* data, size_t bytes) {
  uint64_t sum[8] = {};
  for (size_t i = 0; i + 64 <= bytes; i += 64)
    for (int k = 0; k < 8; ++k) {
      uint64_t v;
      std::memcpy(&v, data + i + 8 * k, 8);
      sum[k] += v;
    }
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

}  // namespace MOTET_NS
