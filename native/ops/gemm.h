// Two tiles (32 weight rows) times any number of tokens, for every pair of weight kind and activation kind. The callers
// (linear, moe) split tiles over threads and say where results go.
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
  for (int t = 0; t < N; ++t) vstore(out + t * kOut, acc[t]);
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
  for (int t = 0; t < N; ++t) vstore(out + t * kOut, acc[t]);
}

struct Tile {
  const motet::Matrix* w;
  const uint8_t *data, *scales;
  const float* panel;  // null = decode while multiplying
};

template <int N>
static void tile_tokens(const Tile& tile, const Token* tokens, float* out) {
  const motet::Matrix& w = *tile.w;
  const int cols = w.blocks * motet::kBlock;
  if (tokens[0].q) {
    if (w.kind == motet::Kind::kInt8) int8_direct<N>(tile.data, tile.scales, w.blocks, tokens, out);
    else mxfp4_direct<N>(tile.data, tile.scales, w.blocks, tokens, out);
  } else if (tile.panel) {
    f32_panel<N>(tile.panel, cols, tokens, out);
  } else if (w.kind == motet::Kind::kBf16) {
    bf16_direct<N>(reinterpret_cast<const uint16_t*>(tile.data), cols, tokens, out);
  } else {
    f32_panel<N>(reinterpret_cast<const float*>(tile.data), cols, tokens, out);
  }
}

static void tile_group(const Tile& tile, const Token* tokens, int count, float* out) {
  switch (count) {
    case 1: return tile_tokens<1>(tile, tokens, out);
    case 2: return tile_tokens<2>(tile, tokens, out);
    case 3: return tile_tokens<3>(tile, tokens, out);
    case 4: return tile_tokens<4>(tile, tokens, out);
    default: return tile_tokens<kMaxTokens>(tile, tokens, out);
  }
}

// Tiles t .. t + n_tiles (1 or 2) of one matrix times all rows: done(first, count, values [count][32]) for successive tokens.
template <class Done>
static void run_panel(const motet::Matrix& w, int matrix, int t, int n_tiles, const Rows& rows, int worker, Done done) {
  if (rows.packed) return packed_panel(w, matrix, t, n_tiles, rows, worker, done);
  const motet::Acts& a = *rows.acts;
  Tile tiles[2];
  for (int i = 0; i < n_tiles; ++i) tiles[i] = {&w, w.tile_data(matrix, t + i), w.scales ? w.tile_scales(matrix, t + i) : nullptr, nullptr};
  if (!a.q && (w.kind == motet::Kind::kMxfp4 || w.kind == motet::Kind::kInt8 ||
               (w.kind == motet::Kind::kBf16 && rows.count >= kPanelTokens))) {
    const size_t floats = static_cast<size_t>(w.blocks) * motet::kBlock * 16;
    float* panels = static_cast<float*>(motet::worker_scratch(worker, 2 * floats * sizeof(float)));
    for (int i = 0; i < n_tiles; ++i) {
      decode_f32(w, tiles[i].data, tiles[i].scales, panels + i * floats);
      tiles[i].panel = panels + i * floats;
    }
  }
  alignas(64) float out[kMaxTokens * kOut];
  Token tokens[kMaxTokens];
  for (long first = 0; first < rows.count;) {
    const long left = rows.count - first;
    const int count = left >= kMaxTokens ? kMaxTokens : left >= 4 ? 4 : static_cast<int>(left);
    for (int i = 0; i < count; ++i) tokens[i] = token_of(a, rows.row(first + i));
    for (int i = 0; i < n_tiles; ++i) tile_group(tiles[i], tokens, count, out + i * 16);
    done(first, count, out);
    first += count;
  }
}

}  // namespace MOTET_NS
