// Every op of every target this CPU runs against the scalar target, bit for bit, on ragged sizes. Needs no Python: for
// targets whose CPU is emulated (make test-neon). Prints a line per target and op; exit 1 when any bit differs.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "ops.h"
#include "threads.h"

using namespace motet;

namespace {

constexpr int kSizes[] = {1, 2, 3, 29, 31, 32, 33, 64, 97};

struct Random {
  std::mt19937 engine;
  explicit Random(unsigned seed) : engine(seed) {}
  int below(int n) { return static_cast<int>(engine() % static_cast<unsigned>(n)); }
  float normal() { return std::normal_distribution<float>()(engine); }
  std::vector<float> normals(size_t n) {
    std::vector<float> v(n);
    for (float& x : v) x = normal();
    return v;
  }
  std::vector<uint8_t> bytes(size_t n) {
    std::vector<uint8_t> v(n);
    for (uint8_t& x : v) x = static_cast<uint8_t>(engine());
    return v;
  }
};

uint16_t bf16(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return static_cast<uint16_t>(u >> 16);
}

// What an op leaves behind, as bytes.
struct Output {
  std::vector<uint8_t> bytes;
  template <class T>
  void add(const std::vector<T>& v) {
    const uint8_t* p = reinterpret_cast<const uint8_t*>(v.data());
    bytes.insert(bytes.end(), p, p + v.size() * sizeof(T));
  }
};

struct Weights {  // random tiles with moderate scales
  std::vector<uint8_t> data, scales;
  Matrix m{};
  Weights(Random& r, Kind kind, int count, int rows, int cols, int tiles) {
    const size_t per_block[] = {256, 512, 1024, 2048}, scale_bytes[] = {16, 32, 0, 0};
    const int k = static_cast<int>(kind);
    m.kind = kind, m.count = count, m.rows = rows, m.cols = cols, m.tiles = tiles;
    m.blocks = (cols + kBlock - 1) / kBlock;
    m.data_tile = m.blocks * per_block[k], m.scale_tile = m.blocks * scale_bytes[k];
    const size_t all = static_cast<size_t>(count) * tiles;
    data = r.bytes(all * m.data_tile), scales = r.bytes(all * m.scale_tile);
    if (kind == Kind::kMxfp4)
      for (uint8_t& s : scales) s = static_cast<uint8_t>(118 + s % 6);
    auto half = [&](std::vector<uint8_t>& v, bool positive) {
      for (size_t i = 0; i + 1 < v.size(); i += 2) {
        const uint16_t h = bf16(positive ? std::fabs(r.normal()) * 0.01f + 1e-4f : r.normal());
        std::memcpy(&v[i], &h, 2);
      }
    };
    if (kind == Kind::kInt8) {
      half(scales, true);
      for (uint8_t& b : data) b = b == 128 ? 0 : b;  // the packer never writes -128
    }
    if (kind == Kind::kBf16) half(data, false);
    if (kind == Kind::kF32)
      for (size_t i = 0; i < data.size(); i += 4) {
        const float x = r.normal();
        std::memcpy(&data[i], &x, 4);
      }
    m.data = data.data(), m.scales = scales.empty() ? nullptr : scales.data();
  }
};

struct Activations {
  std::vector<int8_t> q;
  std::vector<float> scale, x;
  std::vector<int32_t> sum, pair;
  Acts acts{};
  Activations(const Ops& ops, const std::vector<float>& from, int rows, int cols, bool int8, bool round) {
    acts.rows = rows, acts.blocks = (cols + kBlock - 1) / kBlock;
    const size_t n = static_cast<size_t>(rows) * acts.blocks;
    if (int8) {
      q.resize(n * kBlock), scale.resize(n), sum.resize(n), pair.resize(n);
      ops.quantize(from.data(), rows, cols, q.data(), scale.data(), sum.data(), pair.data());
      acts.q = q.data(), acts.scale = scale.data(), acts.sum = sum.data(), acts.pair = pair.data();
    } else {
      x.resize(n * kBlock);
      ops.pad(from.data(), rows, cols, round, x.data());
      acts.x = x.data();
    }
  }
};

void rms_norm(const Ops& ops, Random& r, int size, Output& out) {
  const auto x = r.normals(3 * size), gain = r.normals(size);
  std::vector<float> y(x.size());
  ops.rms_norm(x.data(), gain.data(), 1e-5f, 3, size, y.data());
  out.add(y);
}

void quantize(const Ops& ops, Random& r, int size, Output& out) {
  const Activations a(ops, r.normals(5 * size), 5, size, true, false);
  out.add(a.q), out.add(a.scale), out.add(a.sum);
}

void pad(const Ops& ops, Random& r, int size, Output& out) {
  for (bool round : {false, true}) out.add(Activations(ops, r.normals(3 * size), 3, size, false, round).x);
}

void linear(const Ops& ops, Random& r, int size, Output& out) {
  for (int kind = 0; kind < 4; ++kind)
    for (int tokens : {1, 2, 5, 9, 17, 40}) {
      const int rows = kSizes[r.below(9)], cols = kind ? size : (size + 31) / 32 * 32;
      const Weights w(r, static_cast<Kind>(kind), 1, rows, cols, (rows + kTile - 1) / kTile);
      const auto x = r.normals(static_cast<size_t>(tokens) * cols), bias = r.normals(rows);
      for (bool int8 : {false, true}) {
        if (int8 && kind > 1) continue;
        std::vector<float> y(static_cast<size_t>(tokens) * rows, 0.5f);
        const Activations a(ops, x, tokens, cols, int8, false);
        ops.linear(w.m, a.acts, bias.data(), size % 2, y.data());
        out.add(y);
      }
    }
}

// Rotates, writes pages and attends: three sequences over several pages, splits included, for every kind of page.
void attention(const Ops& ops, Random& r, int size, Output& out) {
  const int dims[] = {2, 10, 32, 64, 80}, ratios[] = {1, 2, 5, 8}, windows[] = {0, 1, 7, 64, 100};
  const int dim = dims[size % 5], ratio = ratios[r.below(4)], kv = 1 + r.below(2), heads = kv * ratio, window = windows[r.below(5)];
  const int lengths[] = {size, 1, 1 + size % 9};
  const long starts[] = {r.below(200), 1020 + r.below(70), r.below(3)};
  for (int kind = 0; kind < 3; ++kind) {
    const size_t element[] = {2, 4, 1};
    const int wide = (dim + 31) / 32 * 32;
    const size_t unit = kPage * static_cast<size_t>(dim + wide) * element[kind] + (kind == 2 ? 2 * kPage * 4 : 0);
    KvLayer layer{static_cast<Kv>(kind), kv, dim, kv * unit, unit};
    std::vector<std::vector<uint8_t>> pages;
    std::vector<std::vector<uint8_t*>> tables(3);
    std::vector<Span> spans, now;
    int row = 0, old_rows = 0;
    for (int s = 0; s < 3; ++s) {
      for (long p = 0; p * kPage < starts[s] + lengths[s]; ++p) pages.emplace_back(2 * kv * unit, 0);
      old_rows += static_cast<int>(starts[s]);
    }
    size_t at = 0;
    int old_row = 0;
    for (int s = 0; s < 3; ++s) {
      for (long p = 0; p * kPage < starts[s] + lengths[s]; ++p) tables[s].push_back(pages[at++].data());
      if (starts[s]) spans.push_back({old_row, static_cast<int>(starts[s]), 0, 0, tables[s].data()});
      now.push_back({row, lengths[s], starts[s], 0, tables[s].data()});
      old_row += static_cast<int>(starts[s]), row += lengths[s];
    }
    const int width = (heads + 2 * kv) * dim;
    auto rotate = [&](std::vector<Span>& which, int rows) {
      auto qkv = r.normals(static_cast<size_t>(rows) * width);
      const auto cos = r.normals(static_cast<size_t>(rows) * (dim / 2)), sin = r.normals(static_cast<size_t>(rows) * (dim / 2));
      ops.rope({qkv.data(), cos.data(), sin.data(), layer, which.data(), static_cast<int>(which.size()), heads});
      return qkv;
    };
    if (old_rows) rotate(spans, old_rows);
    const auto qkv = rotate(now, row);
    for (const auto& page : pages) out.add(page);
    const auto sinks = r.normals(heads);
    std::vector<float> y(static_cast<size_t>(row) * heads * dim);
    ops.attention({qkv.data(), width, layer, now.data(), 3, heads, window, sinks.data(), y.data()});
    out.add(y);
  }
}

void route(const Ops& ops, Random& r, int size, Output& out) {
  const auto logits = r.normals(4 * size);
  const int k = 1 + r.below(size);
  std::vector<int32_t> ids(4 * k);
  std::vector<float> weights(4 * k);
  ops.route(logits.data(), 4, size, k, ids.data(), weights.data());
  out.add(ids), out.add(weights);
}

void moe(const Ops& ops, Random& r, int size, Output& out) {
  for (int kind = 0; kind < 4; ++kind)
    for (int tokens : {1, 7, 40}) {
      const int experts = 1 + r.below(4), k = 1 + r.below(experts);
      const int hidden = kind ? size : (size + 31) / 32 * 32, width = kind ? 41 : 64, pairs = (width + kTile - 1) / kTile;
      const Weights w1(r, static_cast<Kind>(kind), experts, 2 * width, hidden, 2 * pairs);
      const Weights w2(r, static_cast<Kind>(kind), experts, hidden, width, (hidden + kTile - 1) / kTile);
      const auto h = r.normals(static_cast<size_t>(tokens) * hidden), logits = r.normals(static_cast<size_t>(tokens) * experts);
      const auto gate = r.normals(experts * width), up = r.normals(experts * width), b2 = r.normals(static_cast<size_t>(experts) * hidden);
      std::vector<int32_t> ids(tokens * k);
      std::vector<float> weights(tokens * k);
      scalar_ops().route(logits.data(), tokens, experts, k, ids.data(), weights.data());
      for (bool int8 : {false, true}) {
        if (int8 && kind > 1) continue;
        auto x = r.normals(static_cast<size_t>(tokens) * hidden);
        const Activations a(ops, h, tokens, hidden, int8, false);
        MoeArgs args{};
        args.acts = a.acts, args.ids = ids.data(), args.weights = weights.data(), args.tokens = tokens, args.k = k;
        args.w1 = w1.m, args.w2 = w2.m, args.b1_gate = gate.data(), args.b1_up = up.data(), args.b2 = b2.data();
        args.width = width, args.hidden = hidden, args.alpha = 1.702f, args.limit = 7.0f, args.x = x.data();
        ops.moe(args);
        out.add(x);
      }
    }
}

using Case = void (*)(const Ops&, Random&, int, Output&);
constexpr struct { const char* name; Case run; } kCases[] = {
    {"rms_norm", rms_norm}, {"quantize", quantize}, {"pad", pad}, {"linear", linear},
    {"attention", attention}, {"route", route}, {"moe", moe},
};

// Same seeds, same input; the number of bytes that differ.
size_t difference(const Ops& ours, Case run, size_t* total) {
  size_t wrong = 0;
  for (unsigned seed = 0; seed < 3; ++seed)
    for (int size : kSizes) {
      Output a, b;
      Random ra(seed * 1000 + size), rb(seed * 1000 + size);
      run(scalar_ops(), ra, size, a);
      run(ours, rb, size, b);
      *total += a.bytes.size();
      if (a.bytes.size() != b.bytes.size()) return a.bytes.size() + b.bytes.size();
      for (size_t i = 0; i < a.bytes.size(); ++i) wrong += a.bytes[i] != b.bytes[i];
    }
  return wrong;
}

}  // namespace

int main() {
  set_thread_count(2);
  const char* names[8];
  const int count = available_isas(names, 8);
  size_t failures = 0, targets = 0;
  for (int i = 0; i < count; ++i) {
    if (!std::strcmp(names[i], "scalar")) continue;
    set_isa(names[i]);
    ++targets;
    for (const auto& c : kCases) {
      size_t total = 0;
      const size_t wrong = difference(ops(), c.run, &total);
      std::printf("%-7s %-9s %s (%zu of %zu bytes differ)\n", names[i], c.name, wrong ? "FAIL" : "ok", wrong, total);
      failures += wrong != 0;
    }
  }
  if (!targets) std::printf("this CPU runs no target but scalar: nothing was compared\n");
  return failures || !targets;
}
