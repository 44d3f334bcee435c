// Attention with a learned sink per head, causal, full or sliding (model.md 2.2), in flash form: keys in chunks of 64
// cut at absolute positions, a running maximum and sum that start from the sink, chunk after chunk in order. The cut does not depend on what
// else is in the batch, how the prompt was split or where the ring begins, so neither do the bits of a row.
#pragma once

namespace MOTET_NS {

constexpr int kChunk = 64;         // keys handled together; 4 logical vectors of scores
constexpr int kQueryTokens = 8;    // query tokens per work item: with 8 heads a kv head, 64 rows share a loaded chunk

struct KeyRange { long from, to; };  // [from, to) of absolute positions

static inline KeyRange keys_of(const motet::AttentionArgs& a, long position) {
  long from = a.window > 0 && position + 1 > a.window ? position + 1 - a.window : 0;
  return {from, position + 1};
}

static inline void load_row(const motet::AttentionArgs& a, const void* cache, const void* fresh, long position, int g, float* out) {
  const bool old = position < a.start;
  const long row = old ? position % a.capacity : position - a.start;
  const size_t at = (static_cast<size_t>(row) * a.kv_heads + g) * a.head_dim;
  const void* from = old ? cache : fresh;
  for (int i = 0; i < a.head_dim; i += 16) {
    const int n = a.head_dim - i;
    if (a.kv_f32) {
      vstore(out + i, vload_n(static_cast<const float*>(from) + at + i, n));
    } else if (n >= 16) {
      vstore(out + i, vload_bf16(static_cast<const uint16_t*>(from) + at + i));
    } else {
      uint16_t part[16] = {};
      std::memcpy(part, static_cast<const uint16_t*>(from) + at + i, static_cast<size_t>(n) * 2);
      vstore(out + i, vload_bf16(part));
    }
  }
}

// One query row against one chunk: keys kt [Dp][64] transposed, values v [64][Dp]; o (Dp), top, total updated.
static void attend(const float* q, const float* kt, const float* v, int dim, int padded, int lo, int hi, float* o, float& top,
                   float& total) {
  F s0 = vset(0.0f), s1 = s0, s2 = s0, s3 = s0;
  for (int d = 0; d < dim; ++d) {
    const F x = vset(q[d]);
    const float* row = kt + d * kChunk;
    s0 = vfma(x, vload(row), s0);
    s1 = vfma(x, vload(row + 16), s1);
    s2 = vfma(x, vload(row + 32), s2);
    s3 = vfma(x, vload(row + 48), s3);
  }
  alignas(64) float p[kChunk];
  vstore(p, s0);
  vstore(p + 16, s1);
  vstore(p + 32, s2);
  vstore(p + 48, s3);
  constexpr float none = -__builtin_inff();
  for (int j = 0; j < lo; ++j) p[j] = none;
  for (int j = hi; j < kChunk; ++j) p[j] = none;
  s0 = vload(p), s1 = vload(p + 16), s2 = vload(p + 32), s3 = vload(p + 48);
  const float highest = vtop(vmax(vmax(s0, s1), vmax(s2, s3)));
  const float old_top = top;
  if (highest > top) top = highest;
  const F m = vset(top);
  s0 = vexp(vsub(s0, m)), s1 = vexp(vsub(s1, m)), s2 = vexp(vsub(s2, m)), s3 = vexp(vsub(s3, m));
  vstore(p, s0);
  vstore(p + 16, s1);
  vstore(p + 32, s2);
  vstore(p + 48, s3);
  const float shrink = exp1(old_top - top);
  total = total * shrink + vsum(vadd(vadd(s0, s1), vadd(s2, s3)));
  const F f = vset(shrink);
  for (int i = 0; i < padded; i += 64) {
    const int n = padded - i < 64 ? padded - i : 64;
    F acc[4];
    for (int c = 0; c * 16 < n; ++c) acc[c] = vmul(vload(o + i + c * 16), f);
    if (n == 64) {
      F a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
      for (int j = lo; j < hi; ++j) {
        const F w = vset(p[j]);
        const float* row = v + static_cast<size_t>(j) * padded + i;
        a0 = vfma(w, vload(row), a0);
        a1 = vfma(w, vload(row + 16), a1);
        a2 = vfma(w, vload(row + 32), a2);
        a3 = vfma(w, vload(row + 48), a3);
      }
      acc[0] = a0, acc[1] = a1, acc[2] = a2, acc[3] = a3;
    } else {
      for (int j = lo; j < hi; ++j)
        for (int c = 0; c * 16 < n; ++c) acc[c] = vfma(vset(p[j]), vload(v + static_cast<size_t>(j) * padded + i + c * 16), acc[c]);
    }
    for (int c = 0; c * 16 < n; ++c) vstore(o + i + c * 16, acc[c]);
  }
}

static void attention_item(const motet::AttentionArgs& a, int first, int count, int g, float* scratch) {
  const int dim = a.head_dim, padded = (dim + 15) / 16 * 16, group = a.heads / a.kv_heads, rows = count * group;
  float *kt = scratch, *v = kt + padded * kChunk, *q = v + padded * kChunk, *o = q + static_cast<size_t>(rows) * padded;
  float *top = o + static_cast<size_t>(rows) * padded, *total = top + rows, *key = total + rows;
  const F scale = vset(1.0f / __builtin_sqrtf(static_cast<float>(dim)));
  for (int r = 0; r < rows; ++r) {
    const int t = first + r / group, h = g * group + r % group;
    for (int i = 0; i < padded; i += 16) {
      vstore(q + static_cast<size_t>(r) * padded + i, vmul(vload_n(a.q + t * a.q_stride + static_cast<long>(h) * dim + i, dim - i), scale));
      vstore(o + static_cast<size_t>(r) * padded + i, vset(0.0f));
    }
    top[r] = a.sinks[h];
    total[r] = 1.0f;
  }
  const long lowest = keys_of(a, a.start + first).from, end = a.start + first + count;
  for (long chunk = lowest / kChunk * kChunk; chunk < end; chunk += kChunk) {
    for (int j = 0; j < kChunk; ++j) {
      const long position = chunk + j;
      float* row = v + static_cast<size_t>(j) * padded;
      if (position < lowest || position >= end) {
        for (int i = 0; i < padded; ++i) row[i] = 0.0f;
        for (int d = 0; d < dim; ++d) kt[d * kChunk + j] = 0.0f;
        continue;
      }
      load_row(a, a.v_cache, a.v_new, position, g, row);
      load_row(a, a.k_cache, a.k_new, position, g, key);
      for (int d = 0; d < dim; ++d) kt[d * kChunk + j] = key[d];
    }
    for (int r = 0; r < rows; ++r) {
      const KeyRange keys = keys_of(a, a.start + first + r / group);
      const long lo = keys.from > chunk ? keys.from - chunk : 0, hi = keys.to < chunk + kChunk ? keys.to - chunk : kChunk;
      if (lo < hi)
        attend(q + static_cast<size_t>(r) * padded, kt, v, dim, padded, static_cast<int>(lo), static_cast<int>(hi),
               o + static_cast<size_t>(r) * padded, top[r], total[r]);
    }
  }
  for (int r = 0; r < rows; ++r) {
    const int t = first + r / group, h = g * group + r % group;
    float* out = a.out + (static_cast<size_t>(t) * a.heads + h) * dim;
    const F norm = vset(total[r]);
    for (int i = 0; i < dim; i += 16) vstore_n(out + i, vdiv(vload(o + static_cast<size_t>(r) * padded + i), norm), dim - i);
  }
}

static void attention(const motet::AttentionArgs& a) {
  const int padded = (a.head_dim + 15) / 16 * 16, rows = kQueryTokens * (a.heads / a.kv_heads);
  const size_t floats = static_cast<size_t>(padded) * (2 * kChunk + 2 * rows + 1) + 2 * rows + 64;
  const long blocks = (a.tokens + kQueryTokens - 1) / kQueryTokens;
  motet::parallel_for(blocks * a.kv_heads, [&](long item, int worker) {
    // Late query blocks see the most keys: hand them out first, so that no thread is left with a long one at the end.
    const int first = static_cast<int>(blocks - 1 - item / a.kv_heads) * kQueryTokens;
    const int count = a.tokens - first < kQueryTokens ? a.tokens - first : kQueryTokens;
    attention_item(a, first, count, static_cast<int>(item % a.kv_heads),
                   static_cast<float*>(motet::worker_scratch(worker, floats * sizeof(float))));
  });
}

}  // namespace MOTET_NS
