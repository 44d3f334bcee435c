// out (T, R) = a (T, K) W^T + bias, or out += that (the residual stream). Threads split rows.
#pragma once

namespace MOTET_NS {

static void linear(const motet::Matrix& w, const motet::Acts& a, const float* bias, bool accumulate, float* out) {
  const int tokens = a.rows;
  // Tiles a thread takes at once: about 64 KB of weights, so that the shared counter and the prefetcher both have peace.
  const long group = 1 + static_cast<long>(65536 / (w.data_tile + 1));
  motet::parallel_for((w.tiles + group - 1) / group, [&](long item, int worker) {
    for (long t = item * group; t < w.tiles && t < (item + 1) * group; ++t) {
      const int row = static_cast<int>(t) * motet::kTile, n_rows = w.rows - row < 16 ? w.rows - row : 16;
      const F b = bias ? vload_n(bias + row, n_rows) : vset(0.0f);
      run_tile(w, 0, static_cast<int>(t), a, tokens, [](long i) { return i; }, worker,
               [&](long first, int count, const float* values) {
                 for (int i = 0; i < count; ++i) {
                   float* y = out + static_cast<size_t>(first + i) * w.rows + row;
                   F v = vadd(vload(values + i * 16), b);
                   if (accumulate) v = vadd(vload_n(y, n_rows), v);
                   vstore_n(y, v, n_rows);
                 }
               });
    }
  });
}

}  // namespace MOTET_NS
