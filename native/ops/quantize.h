// Activations for the matrix kernels: int8 in blocks of 32 with a float32 scale (as Q8_0, but the scale is not
// rounded), or float32 padded with zeros and, on request, rounded to bf16.
#pragma once

namespace MOTET_NS {

static void quantize_block(const float* x, int n, int8_t* q, float* scale, int32_t* sum, int32_t* pair) {
  F a = vload_n(x, n), b = n > 16 ? vload_n(x + 16, n - 16) : vset(0.0f);
  float top = vtop(vmax(vabs(a), vabs(b)));
  float inverse = top > 0.0f ? 127.0f / top : 0.0f;
  // A subnormal maximum would make the inverse infinite; such a block is zero to float32 precision anyway.
  if (!(inverse <= 3.0e38f)) inverse = 0.0f;
  *scale = top / 127.0f;
  vstore_int8(q, vround(vmul(a, vset(inverse))));
  vstore_int8(q + 16, vround(vmul(b, vset(inverse))));
  int even = 0, odd = 0;
  for (int i = 0; i < 32; i += 4) {
    even += q[i] + q[i + 1];
    odd += q[i + 2] + q[i + 3];
  }
  *sum = even + odd;
  *pair = static_cast<int32_t>((static_cast<uint32_t>(-12 * even) & 0xffffu) | (static_cast<uint32_t>(-12 * odd) << 16));
}

static void quantize(const float* x, int rows, int cols, int8_t* q, float* scale, int32_t* sum, int32_t* pair) {
  const int blocks = (cols + motet::kBlock - 1) / motet::kBlock;
  motet::parallel_for((rows + 7) / 8, [&](long group, int) {
    for (int t = static_cast<int>(group) * 8; t < rows && t < (group + 1) * 8; ++t) {
      for (int b = 0; b < blocks; ++b) {
        size_t at = static_cast<size_t>(t) * blocks + b;
        quantize_block(x + static_cast<size_t>(t) * cols + b * motet::kBlock, cols - b * motet::kBlock,
                       q + at * motet::kBlock, scale + at, sum + at, pair + at);
      }
    }
  });
}

static void pad(const float* x, int rows, int cols, bool round_bf16, float* out) {
  const int padded = (cols + motet::kBlock - 1) / motet::kBlock * motet::kBlock;
  for (int t = 0; t < rows; ++t) {
    for (int i = 0; i < padded; i += 16) {
      int n = cols - i;
      F v = n > 0 ? vload_n(x + static_cast<size_t>(t) * cols + i, n) : vset(0.0f);
      if (round_bf16) {
        uint16_t half[16];
        vstore_bf16(half, v);
        v = vload_bf16(half);
      }
      vstore(out + static_cast<size_t>(t) * padded + i, v);
    }
  }
}

}  // namespace MOTET_NS
