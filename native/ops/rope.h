// Rotary embedding in half-split form on q and k, in place in qkv rows [q H*D | k K*D | v K*D]; then this step's keys
// and values enter their pages (model.md 2.2, 2.3).
#pragma once

namespace MOTET_NS {

static void rotate(float* x, const float* cos, const float* sin, int half) {
  for (int i = 0; i < half; i += 16) {
    const int n = half - i;
    F c = vload_n(cos + i, n), s = vload_n(sin + i, n), a = vload_n(x + i, n), b = vload_n(x + half + i, n);
    vstore_n(x + i, vsub(vmul(a, c), vmul(b, s)), n);
    vstore_n(x + half + i, vadd(vmul(b, c), vmul(a, s)), n);
  }
}

template <class T>
static void rope_rows(const motet::RopeArgs& a, const motet::Span& span, int first, int count, int worker) {
  const int dim = a.kv.head_dim, half = dim / 2, rotated = a.heads + a.kv.kv_heads;
  const size_t stride = static_cast<size_t>(rotated + a.kv.kv_heads) * dim;
  T* scratch = static_cast<T*>(motet::worker_scratch(worker, static_cast<size_t>(dim + 16) * sizeof(T)));
  for (int t = first; t < first + count; ++t) {
    const size_t row = static_cast<size_t>(span.row) + t;
    float* x = a.qkv + row * stride;
    for (int h = 0; h < rotated; ++h) rotate(x + static_cast<size_t>(h) * dim, a.cos + row * half, a.sin + row * half, half);
    const float* k = x + static_cast<size_t>(a.heads) * dim;
    const long position = span.start + t;
    write_position<T>(a.kv, span.pages[position / kPage - span.first], static_cast<int>(position % kPage), k,
                      k + static_cast<size_t>(a.kv.kv_heads) * dim, scratch);
  }
}

static void rope(const motet::RopeArgs& a) {
  struct Piece { int span, first, count; };  // positions of one page: no two threads write to the same lines
  std::vector<Piece> pieces;
  for (int s = 0; s < a.count; ++s) {
    for (int t = 0; t < a.spans[s].tokens;) {
      const int left = kPage - static_cast<int>((a.spans[s].start + t) % kPage), rest = a.spans[s].tokens - t;
      const int count = left < rest ? left : rest;
      pieces.push_back({s, t, count});
      t += count;
    }
  }
  motet::parallel_for(static_cast<long>(pieces.size()), [&](long i, int worker) {
    const Piece& p = pieces[i];
    switch (a.kv.kind) {
      case motet::Kv::kBf16: return rope_rows<uint16_t>(a, a.spans[p.span], p.first, p.count, worker);
      case motet::Kv::kF32: return rope_rows<float>(a, a.spans[p.span], p.first, p.count, worker);
      case motet::Kv::kInt8: return rope_rows<int8_t>(a, a.spans[p.span], p.first, p.count, worker);
    }
  });
}

}  // namespace MOTET_NS
