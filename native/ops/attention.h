// Attention with a learned sink per head, causal, full or sliding (model.md 2.2), in flash form over pages of 64 keys.
// A row's keys are cut at absolute positions into splits of kSplit pages; within a split a running maximum and sum go page
// by page, and splits are merged in order, after the sink. Nothing else decides the order of a sum, so a row has the same
// bits in a prompt or alone, in one thread or with its splits on many.
#pragma once
#include <atomic>
#include <memory>

namespace MOTET_NS {

constexpr int kSplit = 16;        // pages whose sums are taken together: 1,024 positions
constexpr int kQueryTokens = 8;   // query tokens per work item: with 8 heads a kv head, 64 rows share a page in L1
constexpr int kToL2 = 2;           // fetching to L1 would take the few buffers that loads need
constexpr float kNone = -__builtin_inff();

struct Range { long from, to; };  // [from, to)

static inline Range keys_of(const motet::AttentionArgs& a, long position) {
  return {a.window > 0 && position + 1 > a.window ? position + 1 - a.window : 0, position + 1};
}

// Softmax numerators so far of some rows: sum of p * v (rows, Dv), the maximum score, the sum of p.
struct Sums {
  float *o, *top, *total;
};

// R heads of one token against keys [lo, hi) of one page. q (D, R); o (R, Dv), top (R) and lanes (R, 16) are updated.
// `next` is the page to be read then; it is fetched meanwhile, line after line.
template <int R, class T>
static void attend(const float* q, const Unit<T>& page, const T* next, int dim, int lo, int hi, float* o, float* top, float* lanes) {
  constexpr bool scaled = sizeof(T) == 1;
  alignas(64) float p[R][kPage];
  for (int c = 0; c < kPage; c += 32) {
    F s[R][2], k0, k1;
    for (int r = 0; r < R; ++r) s[r][0] = s[r][1] = vset(0.0f);
    const T* keys = page.keys + c;
    for (int d = 0; d < dim; ++d, keys += kPage, next += 32) {
      __builtin_prefetch(next, 0, kToL2);
      load_pair(keys, k0, k1);
      for (int r = 0; r < R; ++r) {
        const F x = vset(q[d * R + r]);
        s[r][0] = vfma(x, k0, s[r][0]), s[r][1] = vfma(x, k1, s[r][1]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int i = 0; i < 2; ++i) {
        if (scaled) s[r][i] = vmul(s[r][i], vload(page.scales + c + 16 * i));
        vstore(p[r] + c + 16 * i, s[r][i]);
      }
    }
  }
  alignas(64) float before[16] = {}, now[16] = {}, shrink[16];
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < lo; ++j) p[r][j] = kNone;
    for (int j = hi; j < kPage; ++j) p[r][j] = kNone;
    const float highest = vtop(vmax(vmax(vload(p[r]), vload(p[r] + 16)), vmax(vload(p[r] + 32), vload(p[r] + 48))));
    before[r] = top[r];
    now[r] = top[r] = highest > top[r] ? highest : top[r];
  }
  vstore(shrink, vexp_down(vsub(vload(before), vload(now))));
  for (int r = 0; r < R; ++r) {
    const F m = vset(now[r]);
    F s[4];
    for (int i = 0; i < 4; ++i) s[i] = vexp_down(vsub(vload(p[r] + 16 * i), m));
    const F sum = vadd(vadd(s[0], s[1]), vadd(s[2], s[3]));
    vstore(lanes + 16 * r, vfma(vload(lanes + 16 * r), vset(shrink[r]), sum));
    for (int i = 0; i < 4; ++i) {
      if (scaled) s[i] = vmul(s[i], vload(page.scales + kPage + 16 * i));
      vstore(p[r] + 16 * i, s[i]);
    }
  }
  const int wide = padded_values(dim);
  for (int c = 0; c < wide; c += 32) {
    F s[R][2], v0, v1;
    for (int r = 0; r < R; ++r)
      for (int i = 0; i < 2; ++i) s[r][i] = vmul(vload(o + r * wide + c + 16 * i), vset(shrink[r]));
    for (int j = lo; j < hi; ++j, next += 32) {
      __builtin_prefetch(next, 0, kToL2);
      load_pair(page.values + static_cast<size_t>(j) * wide + c, v0, v1);
      for (int r = 0; r < R; ++r) {
        const F x = vset(p[r][j]);
        s[r][0] = vfma(x, v0, s[r][0]), s[r][1] = vfma(x, v1, s[r][1]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int i = 0; i < 2; ++i) vstore(o + r * wide + c + 16 * i, s[r][i]);
  }
}

// A few query tokens of one sequence, their heads of one kv head. Row r is head r % group of token r / group.
struct Block {
  const motet::AttentionArgs& a;
  const motet::Span& span;
  int first, count, head;  // tokens of the span; kv head

  int group() const { return a.heads / a.kv.kv_heads; }
  int rows() const { return count * group(); }
  int wide() const { return padded_values(a.kv.head_dim); }
  long position(int t) const { return span.start + first + t; }
  Range pages() const { return {keys_of(a, position(0)).from / kPage, position(count - 1) / kPage + 1}; }
  Range splits() const { return {pages().from / kSplit, (pages().to - 1) / kSplit + 1}; }
  // Heads taken together; rows of one call share their keys, so it never spans two tokens.
  int heads_at(int h) const {
    int n = kHeadsAtOnce;
    while (n > group() - h) n /= 2;
    return n;
  }
  size_t sums_floats() const { return static_cast<size_t>(rows()) * (wide() + 2); }
  Sums sums(float* at) const {
    float* top = at + static_cast<size_t>(rows()) * wide();
    return {at, top, top + rows()};
  }
};

// Scaled queries, (D, R) per call of attend.
static void gather_queries(const Block& b, float* q) {
  const int dim = b.a.kv.head_dim, group = b.group();
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(dim));
  for (int t = 0; t < b.count; ++t) {
    const float* from = b.a.q + (b.span.row + b.first + t) * b.a.q_stride + static_cast<size_t>(b.head) * group * dim;
    for (int h = 0; h < group;) {
      const int n = b.heads_at(h);
      for (int r = 0; r < n; ++r)
        for (int d = 0; d < dim; ++d) q[d * n + r] = from[(h + r) * dim + d] * scale;
      q += static_cast<size_t>(n) * dim;
      h += n;
    }
  }
}

template <class T>
static void sum_split(const Block& b, long split, const float* q, float* lanes, Sums out) {
  const int dim = b.a.kv.head_dim, wide = b.wide(), group = b.group(), rows = b.rows();
  std::memset(out.o, 0, static_cast<size_t>(rows) * wide * sizeof(float));
  std::memset(lanes, 0, static_cast<size_t>(rows) * 16 * sizeof(float));
  for (int r = 0; r < rows; ++r) out.top[r] = kNone;
  const Range all = b.pages();
  const long from = all.from > split * kSplit ? all.from : split * kSplit, end = (split + 1) * kSplit;
  for (long page = from; page < all.to && page < end; ++page) {
    uint8_t* const* held = b.span.pages + (page - b.span.first);
    const Unit<T> unit = unit_of<T>(b.a.kv, held[0], b.head);
    const T* next = unit_of<T>(b.a.kv, held[page + 1 < all.to], b.head).keys;
    for (int t = 0; t < b.count; ++t) {
      const Range keys = keys_of(b.a, b.position(t));
      const long lo = keys.from - page * kPage, hi = keys.to - page * kPage;
      if (lo >= kPage || hi <= 0) continue;
      const int l = lo < 0 ? 0 : static_cast<int>(lo), h = hi > kPage ? kPage : static_cast<int>(hi);
      for (int i = 0; i < group;) {
        const int n = b.heads_at(i), r = t * group + i;
        const float* x = q + static_cast<size_t>(r) * dim;
        float *o = out.o + static_cast<size_t>(r) * wide, *top = out.top + r, *sums = lanes + 16 * r;
        if (kHeadsAtOnce >= 8 && n == 8) attend<kHeadsAtOnce >= 8 ? 8 : 1, T>(x, unit, next, dim, l, h, o, top, sums);
        else if (kHeadsAtOnce >= 4 && n == 4) attend<kHeadsAtOnce >= 4 ? 4 : 1, T>(x, unit, next, dim, l, h, o, top, sums);
        else if (n == 2) attend<2, T>(x, unit, next, dim, l, h, o, top, sums);
        else attend<1, T>(x, unit, next, dim, l, h, o, top, sums);
        i += n;
      }
    }
  }
  for (int r = 0; r < rows; ++r) out.total[r] = vsum(vload(lanes + 16 * r));
}

static void start_with_sinks(const Block& b, Sums sums) {
  std::memset(sums.o, 0, static_cast<size_t>(b.rows()) * b.wide() * sizeof(float));
  for (int r = 0; r < b.rows(); ++r) sums.top[r] = b.a.sinks[b.head * b.group() + r % b.group()], sums.total[r] = 1.0f;
}

static void merge(const Block& b, Sums into, Sums part) {
  const int wide = b.wide();
  for (int r = 0; r < b.rows(); ++r) {
    if (part.top[r] == kNone) continue;  // no key of this split is the row's
    const float top = part.top[r] > into.top[r] ? part.top[r] : into.top[r];
    const float x = exp1(into.top[r] - top), y = exp1(part.top[r] - top);
    into.top[r] = top;
    into.total[r] = into.total[r] * x + part.total[r] * y;
    float *o = into.o + static_cast<size_t>(r) * wide, *p = part.o + static_cast<size_t>(r) * wide;
    for (int i = 0; i < wide; i += 16) vstore(o + i, vfma(vload(o + i), vset(x), vmul(vload(p + i), vset(y))));
  }
}

static void write_rows(const Block& b, Sums sums) {
  const int dim = b.a.kv.head_dim, group = b.group();
  for (int r = 0; r < b.rows(); ++r) {
    const size_t row = static_cast<size_t>(b.span.row) + b.first + r / group;
    float* out = b.a.out + (row * b.a.heads + b.head * group + r % group) * dim;
    const float* o = sums.o + static_cast<size_t>(r) * b.wide();
    for (int i = 0; i < dim; i += 16) vstore_n(out + i, vdiv(vload(o + i), vset(sums.total[r])), dim - i);
  }
}

// What a worker does at once: a whole block, or one split of a block whose splits are spread (splits > 0).
struct Item {
  int span, first, count, splits;
  long split;
  size_t partial, left;  // where this block's sums and its counters of unfinished splits begin
};

template <class T>
static void attention_item(const motet::AttentionArgs& a, const Item& item, int head, int worker, float* partials, std::atomic<int>* left) {
  const Block b{a, a.spans[item.span], item.first, item.count, head};
  const size_t sums = b.sums_floats(), q_floats = static_cast<size_t>(b.rows()) * a.kv.head_dim, lane_floats = static_cast<size_t>(b.rows()) * 16;
  float* scratch = static_cast<float*>(motet::worker_scratch(worker, (2 * sums + q_floats + lane_floats) * sizeof(float)));
  const Sums whole = b.sums(scratch);
  float *spare = scratch + sums, *lanes = spare + sums, *q = lanes + lane_floats;
  gather_queries(b, q);
  const Range splits = b.splits();
  auto part = [&](long split) {
    const size_t at = static_cast<size_t>(head) * item.splits + static_cast<size_t>(split - splits.from);
    return b.sums(item.splits ? partials + item.partial + at * sums : spare);
  };
  if (item.splits) {
    sum_split<T>(b, item.split, q, lanes, part(item.split));
    if (left[item.left + head].fetch_sub(1, std::memory_order_acq_rel) != 1) return;  // the last to finish merges
  }
  start_with_sinks(b, whole);
  for (long s = splits.from; s < splits.to; ++s) {
    if (!item.splits) sum_split<T>(b, s, q, lanes, part(s));
    merge(b, whole, part(s));
  }
  write_rows(b, whole);
}

static void attention(const motet::AttentionArgs& a) {
  std::vector<Item> items;
  size_t floats = 0, counters = 0;
  for (int s = 0; s < a.count; ++s) {
    const motet::Span& span = a.spans[s];
    // Late query blocks see the most keys: hand them out first, so that no thread is left with a long one at the end.
    for (int first = (span.tokens - 1) / kQueryTokens * kQueryTokens; first >= 0; first -= kQueryTokens) {
      const int count = span.tokens - first < kQueryTokens ? span.tokens - first : kQueryTokens;
      const Block block{a, span, first, count, 0};
      const Range splits = block.splits();
      const int n = static_cast<int>(splits.to - splits.from);
      if (span.tokens > kQueryTokens || n == 1) {  // a prompt has blocks enough for every thread
        items.push_back({s, first, count, 0, 0, 0, 0});
        continue;
      }
      for (long split = splits.from; split < splits.to; ++split) items.push_back({s, first, count, n, split, floats, counters});
      floats += block.sums_floats() * n * a.kv.kv_heads;
      counters += a.kv.kv_heads;
    }
  }
  std::unique_ptr<float[]> partials(new float[floats]);
  std::unique_ptr<std::atomic<int>[]> left(new std::atomic<int>[counters]);
  for (const Item& item : items)
    for (int g = 0; item.splits && g < a.kv.kv_heads; ++g) left[item.left + g].store(item.splits, std::memory_order_relaxed);
  motet::parallel_for(static_cast<long>(items.size()) * a.kv.kv_heads, [&](long i, int worker) {
    const Item& item = items[i / a.kv.kv_heads];
    const int head = static_cast<int>(i % a.kv.kv_heads);
    switch (a.kv.kind) {
      case motet::Kv::kBf16: return attention_item<uint16_t>(a, item, head, worker, partials.get(), left.get());
      case motet::Kv::kF32: return attention_item<float>(a, item, head, worker, partials.get(), left.get());
      case motet::Kv::kInt8: return attention_item<int8_t>(a, item, head, worker, partials.get(), left.get());
    }
  });
}

}  // namespace MOTET_NS
