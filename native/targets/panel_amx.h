// The form for many tokens (ops/packed.h) with AMX: one tile instruction multiplies 16 tokens by 16 rows over a block of 32
// columns, both signed. What is left for the vector units is scaling: per block 16 vectors are converted, multiplied by
// the weights' scales and added with the tokens'. Same results, to the bit, as dot_scalar.h.
#pragma once

namespace MOTET_NS {

constexpr int kPackedTokens = 5;
constexpr int kGroup = 16;

static int32_t start_of(motet::Kind, int32_t, int32_t) { return 0; }

// Tile registers 0-2 and 3-5 take turns: sums (tokens x 16 rows), activations (tokens x 32), weights (8 x 16 rows x 4).
static void configure(int tokens) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int i = 0; i < 6; i += 3) {
    config.rows[i] = config.rows[i + 1] = static_cast<uint8_t>(tokens);
    config.rows[i + 2] = 8;
    config.bytes[i] = config.bytes[i + 2] = 64;
    config.bytes[i + 1] = 32;
  }
  _tile_loadconfig(&config);
}
// The tile registers are empty again when a panel is done: the system saves 8 KB less when it takes the core away.
struct PanelScope {
  int tokens = 0;  // the tiles' height
  void set(int n) {
    if (n != tokens) configure(tokens = n);
  }
  ~PanelScope() { _tile_release(); }
};

static const uint8_t* decode(motet::Kind kind, const uint8_t* data, int blocks, uint8_t* to) {
  if (kind == motet::Kind::kInt8) return data;
  const __m512i codes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
  const __m512i low = _mm512_set1_epi8(15);
  for (int i = 0; i < blocks * 4; ++i) {
    const __m512i n = load512(data + i * 64);
    _mm512_store_si512(to + i * 128, _mm512_shuffle_epi8(codes, _mm512_and_si512(n, low)));
    _mm512_store_si512(to + i * 128 + 64, _mm512_shuffle_epi8(codes, _mm512_and_si512(_mm512_srli_epi16(n, 4), low)));
  }
  return to;
}

#define MOTET_TILE_DOT(sum, left, right, q, codes, out) \
  _tile_zero(sum);                                      \
  _tile_loadd(left, q, 32);                             \
  _tile_loadd(right, codes, 64);                        \
  _tile_dpbssd(sum, left, right);                       \
  _tile_stored(sum, out, 64)

template <int N>
static inline void scale_block(const int32_t* dots, F scale, const float* tokens, F* acc) {
#pragma GCC unroll 16
  for (int t = 0; t < N; ++t)
    acc[t] = vfma(vmul(_mm512_cvtepi32_ps(load512(dots + t * 16)), scale), vset(tokens[t]), acc[t]);
}

// One tile times N tokens. The dots of a block are scaled while the tile unit works on the next one.
template <int N>
static void multiply_tile(const Codes& tile, const Group& g, int blocks, Ahead ahead, float* out) {
  alignas(64) int32_t dots[2][16 * 16];
  F acc[N];
#pragma GCC unroll 16
  for (int t = 0; t < N; ++t) acc[t] = vload(out + t * kOut);
  auto start = [&](int b) {
    const int8_t* q = g.q + b * (kGroup * 32);
    const uint8_t* codes = tile.codes + b * 512;
    if (b % 2) {
      MOTET_TILE_DOT(3, 4, 5, q, codes, dots[1]);
    } else {
      MOTET_TILE_DOT(0, 1, 2, q, codes, dots[0]);
    }
  };
  start(0);
  for (int b = 0; b < blocks; ++b) {
    for (int i = 0; i < ahead.lines; ++i, ahead.at += 64) _mm_prefetch(reinterpret_cast<const char*>(ahead.at), _MM_HINT_T1);
    if (b + 1 < blocks) start(b + 1);
    scale_block<N>(dots[b % 2], vload(tile.scales + b * 16), g.scale + b * kGroup, acc);
  }
#pragma GCC unroll 16
  for (int t = 0; t < N; ++t) vstore(out + t * kOut, acc[t]);
}

template <int N>
static void multiply_group(PanelScope& scope, const Codes* tiles, int n_tiles, const Group& g, int blocks, Ahead ahead, float* acc) {
  scope.set(N);
  for (int i = 0; i < n_tiles; ++i) {
    multiply_tile<N>(tiles[i], g, blocks, ahead, acc + i * 16);
    ahead.lines = 0;
  }
}

static void multiply(PanelScope& scope, motet::Kind, const Codes* tiles, int n_tiles, Group g, int blocks, int tokens, Ahead ahead, float* acc) {
  if (tokens <= 4) return multiply_group<4>(scope, tiles, n_tiles, g, blocks, ahead, acc);
  if (tokens <= 8) return multiply_group<8>(scope, tiles, n_tiles, g, blocks, ahead, acc);
  if (tokens <= 12) return multiply_group<12>(scope, tiles, n_tiles, g, blocks, ahead, acc);
  multiply_group<16>(scope, tiles, n_tiles, g, blocks, ahead, acc);
}

#undef MOTET_TILE_DOT

}  // namespace MOTET_NS
