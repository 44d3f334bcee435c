// y = x * rsqrt(mean(x^2) + eps) * gain, in float32 (model.md 2.1).
#pragma once

namespace MOTET_NS {

static void rms_norm(const float* x, const float* gain, float eps, int rows, int cols, float* out) {
  motet::parallel_for((rows + 7) / 8, [&](long group, int) {
    for (int t = static_cast<int>(group) * 8; t < rows && t < (group + 1) * 8; ++t) {
      const float* row = x + static_cast<size_t>(t) * cols;
      float* y = out + static_cast<size_t>(t) * cols;
      F sum = vset(0.0f);
      for (int i = 0; i < cols; i += 16) {
        F v = vload_n(row + i, cols - i);
        sum = vfma(v, v, sum);
      }
      float r = 1.0f / __builtin_sqrtf(vsum(sum) / static_cast<float>(cols) + eps);
      F scale = vset(r);
      for (int i = 0; i < cols; i += 16)
        vstore_n(y + i, vmul(vmul(vload_n(row + i, cols - i), scale), vload_n(gain + i, cols - i)), cols - i);
    }
  });
}

}  // namespace MOTET_NS
