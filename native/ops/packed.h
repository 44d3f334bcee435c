// The form of a matrix product for many tokens in int8: activations gathered into groups of kGroup tokens, weights decoded a
// span of columns at a time for two tiles (32 rows), so that both stay in the first cache level while they meet.
//
// For each block the integer dot product is exact and acc = fma(float(dot) * weight_scale, activation_scale, acc), block
// after block, as in the form for few tokens (gemm.h): a row's bits do not tell which form made them.
#pragma once

namespace MOTET_NS {

constexpr int kSpan = 18;  // blocks of columns decoded at once: 2 x 9 KB of codes, and a third of the first cache level

// Gathered tokens: q [group][block][kGroup][32], scale and start [group][block][kGroup]; missing tokens are zeros.
struct Packed {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> start;
  int blocks = 0;

  void resize(long groups, int n_blocks) {
    blocks = n_blocks;
    const size_t n = static_cast<size_t>(groups) * n_blocks * kGroup;
    if (scale.size() < n) q.resize(n * motet::kBlock), scale.resize(n), start.resize(n);
  }
  Group group(long g, int block) {
    const size_t at = (static_cast<size_t>(g) * blocks + block) * kGroup;
    return {q.data() + at * motet::kBlock, scale.data() + at, start.data() + at};
  }
};

// The tokens one matrix meets, in the order of its results: rows of `acts` named by `index` (null: 0, 1, ...).
struct Rows {
  const motet::Acts* acts;
  const int32_t* index;
  long count;
  Packed* packed = nullptr;  // null for few tokens, and for float activations
  long first_group = 0;
  long row(long i) const { return index ? index[i] : i; }
};

static inline long groups_of(long tokens) { return (tokens + kGroup - 1) / kGroup; }
static inline bool packs(const motet::Matrix& w, const motet::Acts& a, long tokens) {
  return a.q && (w.kind == motet::Kind::kInt8 || w.kind == motet::Kind::kMxfp4) && tokens >= kPackedTokens;
}

// Copies group g of `rows` into its place.
static void gather(const Rows& rows, motet::Kind kind, long g) {
  const motet::Acts& a = *rows.acts;
  const long first = g * kGroup, n = rows.count - first < kGroup ? rows.count - first : kGroup;
  for (int b = 0; b < a.blocks; ++b) {
    Group to = rows.packed->group(rows.first_group + g, b);
    for (long t = 0; t < kGroup; ++t) {
      if (t >= n) {
        std::memset(to.q + t * 32, 0, 32);
        to.scale[t] = 0.0f;
        to.start[t] = 0;
        continue;
      }
      const size_t at = static_cast<size_t>(rows.row(first + t)) * a.blocks + b;
      std::memcpy(to.q + t * 32, a.q + at * 32, 32);
      to.scale[t] = a.scale[at];
      to.start[t] = start_of(kind, a.sum[at], a.pair[at]);
    }
  }
}

static void scales_f32(motet::Kind kind, const uint8_t* scales, int blocks, float* out) {
  for (int b = 0; b < blocks; ++b)
    vstore(out + b * 16, kind == motet::Kind::kMxfp4 ? ve8m0_half(scales + b * 16)
                                                      : vload_bf16(reinterpret_cast<const uint16_t*>(scales) + b * 16));
}

// Tiles t .. t + n_tiles of one matrix times all rows: done(first, count, values [count][32]) for successive tokens.
template <class Done>
static void packed_panel(const motet::Matrix& w, int matrix, int t, int n_tiles, const Rows& rows, int worker, Done done) {
  const long groups = groups_of(rows.count);
  const size_t code_bytes = 2 * kSpan * 512, scale_floats = 2 * kSpan * 16;
  const size_t acc_floats = static_cast<size_t>(groups) * kGroup * 32;
  uint8_t* codes = static_cast<uint8_t*>(motet::worker_scratch(worker, code_bytes + (scale_floats + acc_floats) * sizeof(float)));
  float *scales = reinterpret_cast<float*>(codes + code_bytes), *acc = scales + scale_floats;
  std::memset(acc, 0, acc_floats * sizeof(float));
  // The panel behind this one is asked for meanwhile, a few lines at every block.
  const uint8_t* next = w.tile_data(matrix, t) + n_tiles * w.data_tile;
  const long steps = groups * w.blocks, lines = (static_cast<long>(n_tiles * w.data_tile) / 64 + steps - 1) / steps;
  PanelScope scope;
  for (int b = 0; b < w.blocks; b += kSpan) {
    const int n = w.blocks - b < kSpan ? w.blocks - b : kSpan;
    Codes tiles[2];
    for (int i = 0; i < n_tiles; ++i) {
      float* to = scales + i * kSpan * 16;
      scales_f32(w.kind, w.tile_scales(matrix, t + i) + static_cast<size_t>(b) * w.scale_tile / w.blocks, n, to);
      const uint8_t* data = w.tile_data(matrix, t + i) + static_cast<size_t>(b) * w.data_tile / w.blocks;
      tiles[i] = {decode(w.kind, data, n, codes + i * kSpan * 512), to};
    }
    for (long g = 0; g < groups; ++g) {
      const long left = rows.count - g * kGroup;
      multiply(scope, w.kind, tiles, n_tiles, rows.packed->group(rows.first_group + g, b), n,
               static_cast<int>(left < kGroup ? left : kGroup), Ahead{next, static_cast<int>(lines)}, acc + g * kGroup * 32);
      next += n * lines * 64;
    }
  }
  done(0, rows.count, acc);
}

}  // namespace MOTET_NS
