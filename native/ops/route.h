// Top-k over the router logits, highest first, ties to the lowest index; softmax over the chosen only (model.md 2.4).
#pragma once

namespace MOTET_NS {

static void route(const float* logits, int rows, int experts, int k, int32_t* ids, float* weights) {
  for (int t = 0; t < rows; ++t) {
    const float* g = logits + static_cast<size_t>(t) * experts;
    int32_t* id = ids + static_cast<size_t>(t) * k;
    float* w = weights + static_cast<size_t>(t) * k;
    int n = 0;
    for (int e = 0; e < experts; ++e) {
      if (n == k && !(g[e] > w[k - 1])) continue;
      int at = n < k ? n++ : k - 1;
      for (; at > 0 && g[e] > w[at - 1]; --at) {
        w[at] = w[at - 1];
        id[at] = id[at - 1];
      }
      w[at] = g[e];
      id[at] = e;
    }
    const float top = w[0];
    float total = 0.0f;
    for (int i = 0; i < k; ++i) total += w[i] = exp1(w[i] - top);
    for (int i = 0; i < k; ++i) w[i] /= total;
  }
}

}  // namespace MOTET_NS
