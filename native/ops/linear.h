// out (T, R) = a (T, K) W^T + bias, or out += that (the residual stream). Threads split rows.
#pragma once

namespace MOTET_NS {

static void linear(const motet::Matrix& w, const motet::Acts& a, const float* bias, bool accumulate, float* out) {
  static Packed packed;  // kept between calls: one thread at a time owns the workers (bindings.cc)
  Rows rows{&a, nullptr, a.rows};
  if (packs(w, a, a.rows)) {
    rows.packed = &packed;
    packed.resize(groups_of(a.rows), a.blocks);
    motet::parallel_for(groups_of(a.rows), [&](long g, int) { gather(rows, w.kind, g); });
  }
  const int together = w.tiles < 4 * motet::thread_count() ? 1 : 2;  // a router has two tiles: one a thread
  motet::parallel_for((w.tiles + together - 1) / together, [&](long item, int worker) {
    const int t = static_cast<int>(item) * together, row = t * motet::kTile, n_tiles = w.tiles - t < together ? w.tiles - t : together;
    F b[2];
    for (int i = 0; i < n_tiles; ++i) b[i] = bias ? vload_n(bias + row + 16 * i, w.rows - row - 16 * i) : vset(0.0f);
    run_panel(w, 0, t, n_tiles, rows, worker, [&](long first, long count, const float* values) {
      for (long j = 0; j < count; ++j)
        for (int i = 0; i < n_tiles; ++i) {
          const int n = w.rows - row - 16 * i;
          float* y = out + static_cast<size_t>(first + j) * w.rows + row + 16 * i;
          F v = vadd(vload(values + j * kOut + i * 16), b[i]);
          if (accumulate) v = vadd(vload_n(y, n), v);
          vstore_n(y, v, n);
        }
    });
  });
}

}  // namespace MOTET_NS
