// One tile of 16 weight rows times any number of tokens, for every pair of weight kind and activation kind. The
// callers (linear, moe) split tiles over threads and say where results go.
#pragma once

namespace MOTET_NS {

static inline Token token_of(const motet::Acts& a, long row) {
  size_t blocks = static_cast<size_t>(a.blocks), at = static_cast<size_t>(row) * blocks;
  if (a.x) return {nullptr, nullptr, nullptr, nullptr, a.x + at * motet::kBlock};
  return {a.q + at * motet::kBlock, a.scale + at, a.sum + at, a.pair + at, nullptr};
}

// Weights of one tile as float32, [column][16 rows].
static void decode_f32(const motet::Matrix& w, const uint8_t* tile, const uint8_t* scales, float* panel) {
  const int cols = w.blocks * motet::kBlock;
  if (w.kind == motet::Kind::kBf16) {
    const uint16_t* half = reinterpret_cast<const uint16_t*>(tile);
    for (int k = 0; k < cols; k += 2) {
      F even, odd;
      vload_bf16_pairs(half + k * 16, even, odd);
      vstore(panel + k * 16, even);
      vstore(panel + k * 16 + 16, odd);
    }
    return;
  }
  static const float values[16] = {0, 1, 2, 3, 4, 6, 8, 12, -0.0f, -1, -2, -3, -4, -6, -8, -12};
  for (int b = 0; b < w.blocks; ++b) {
    F scale = w.kind == motet::Kind::kMxfp4 ? ve8m0_half(scales + b * 16)
                                             : vload_bf16(reinterpret_cast<const uint16_t*>(scales) + b * 16);
    for (int k = 0; k < 32; ++k) {
      float v[16];
      for (int row = 0; row < 16; ++row) {
        if (w.kind == motet::Kind::kMxfp4) {
          uint8_t byte = tile[b * 256 + (k / 8) * 64 + row * 4 + k % 4];
          v[row] = values[(k / 4) % 2 ? byte >> 4 : byte & 15];
        } else {
          v[row] = static_cast<float>(reinterpret_cast<const int8_t*>(tile)[b * 512 + (k / 4) * 64 + row * 4 + k % 4]);
        }
      }
      vstore(panel + (b * 32 + k) * 16, vmul(vload(v), scale));
    }
  }
}

template <int N>
static void f32_panel(const float* panel, int cols, const Token* tokens, float* out) {
  F acc[N];
  for (int t = 0; t < N; ++t) acc[t] = vset(0.0f);
  for (int k = 0; k < cols; ++k) {
    F w = vload(panel + k * 16);
#pragma GCC unroll 4
    for (int t = 0; t < N; ++t) acc[t] = vfma(w, vset(tokens[t].x[k]), acc[t]);
  }
  for (int t = 0; t < N; ++t) vstore(out + t * 16, acc[t]);
}

template <int N>
static void bf16_direct(const uint16_t* tile, int cols, const Token* tokens, float* out) {
  F acc[N];
  for (int t = 0; t < N; ++t) acc[t] = vset(0.0f);
  for (int k = 0; k < cols; k += 2) {
    F even, odd;
    vload_bf16_pairs(tile + k * 16, even, odd);
#pragma GCC unroll 4
    for (int t = 0; t < N; ++t) acc[t] = vfma(odd, vset(tokens[t].x[k + 1]), vfma(even, vset(tokens[t].x[k]), acc[t]));
  }
  for (int t = 0; t < N; ++t) vstore(out + t * 16, acc[t]);
}

struct Tile {
  const motet::Matrix* w;
  const uint8_t *data, *scales;
  const void* panel;  // null = decode while multiplying
};

template <int N>
static void tile_tokens(const Tile& tile, const Token* tokens, float* out) {
  const motet::Matrix& w = *tile.w;
  const int cols = w.blocks * motet::kBlock;
  if (tokens[0].q) {
    if (w.kind == motet::Kind::kInt8) int8_direct<N>(tile.data, tile.scales, w.blocks, tokens, out);
    else if (tile.panel) mxfp4_panel<N>(static_cast<const uint8_t*>(tile.panel), tile.scales, w.blocks, tokens, out);
    else mxfp4_direct<N>(tile.data, tile.scales, w.blocks, tokens, out);
  } else if (tile.panel) {
    f32_panel<N>(static_cast<const float*>(tile.panel), cols, tokens, out);
  } else if (w.kind == motet::Kind::kBf16) {
    bf16_direct<N>(reinterpret_cast<const uint16_t*>(tile.data), cols, tokens, out);
  } else {
    f32_panel<N>(reinterpret_cast<const float*>(tile.data), cols, tokens, out);
  }
}

static size_t panel_bytes(const motet::Matrix& w) { return static_cast<size_t>(w.blocks) * motet::kBlock * 16 * 4; }

// Calls done(first, count, values) with values [count][16] for successive groups of `row_of(0..n-1)`'s tokens.
template <class RowOf, class Done>
static void run_tile(const motet::Matrix& w, int matrix, int t, const motet::Acts& a, long n, RowOf row_of, int worker,
                     Done done) {
  Tile tile{&w, w.tile_data(matrix, t), w.scales ? w.tile_scales(matrix, t) : nullptr, nullptr};
  const bool int8_acts = a.q != nullptr;
  void* scratch = motet::worker_scratch(worker, panel_bytes(w));
  if (int8_acts && w.kind == motet::Kind::kMxfp4 && n >= kPanelTokens) {
    decode_mxfp4(tile.data, w.blocks, static_cast<uint8_t*>(scratch));
    tile.panel = scratch;
  } else if (!int8_acts && (w.kind == motet::Kind::kMxfp4 || w.kind == motet::Kind::kInt8 ||
                            (w.kind == motet::Kind::kBf16 && n >= kPanelTokens))) {
    decode_f32(w, tile.data, tile.scales, static_cast<float*>(scratch));
    tile.panel = scratch;
  }
  alignas(64) float out[kMaxTokens * 16];
  Token tokens[kMaxTokens];
  for (long first = 0; first < n;) {
    long left = n - first;
    int count = left >= kMaxTokens ? kMaxTokens : left >= 4 ? 4 : static_cast<int>(left);
    for (int i = 0; i < count; ++i) tokens[i] = token_of(a, row_of(first + i));
    switch (count) {
      case 1: tile_tokens<1>(tile, tokens, out); break;
      case 2: tile_tokens<2>(tile, tokens, out); break;
      case 3: tile_tokens<3>(tile, tokens, out); break;
      case 4: tile_tokens<4>(tile, tokens, out); break;
      default: tile_tokens<kMaxTokens>(tile, tokens, out); break;
    }
    done(first, count, out);
    first += count;
  }
}

}  // namespace MOTET_NS
