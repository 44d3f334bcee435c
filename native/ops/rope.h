// Rotary embedding in half-split form on q and k, in place in qkv rows [q H*D | k K*D | v K*D]; then copies this
// step's keys and values out in the cache's type (model.md 2.2, 2.3).
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

static void copy_kv(const float* from, int n, bool f32, void* to, size_t at) {
  if (f32) {
    std::memcpy(static_cast<float*>(to) + at, from, static_cast<size_t>(n) * 4);
    return;
  }
  uint16_t* half = static_cast<uint16_t*>(to) + at;
  for (int i = 0; i < n; i += 16) {
    if (n - i >= 16) {
      vstore_bf16(half + i, vload(from + i));
    } else {
      uint16_t part[16];
      vstore_bf16(part, vload_part(from + i, n - i));
      std::memcpy(half + i, part, static_cast<size_t>(n - i) * 2);
    }
  }
}

static void rope(float* qkv, const float* cos, const float* sin, int tokens, int heads, int kv_heads, int head_dim,
                 bool kv_f32, void* k_new, void* v_new) {
  const int half = head_dim / 2, kv = kv_heads * head_dim;
  const size_t stride = static_cast<size_t>(heads + 2 * kv_heads) * head_dim;
  motet::parallel_for((tokens + 7) / 8, [&](long group, int) {
    for (int t = static_cast<int>(group) * 8; t < tokens && t < (group + 1) * 8; ++t) {
      float* row = qkv + t * stride;
      for (int h = 0; h < heads + kv_heads; ++h)
        rotate(row + static_cast<size_t>(h) * head_dim, cos + static_cast<size_t>(t) * half, sin + static_cast<size_t>(t) * half, half);
      const float* k = row + static_cast<size_t>(heads) * head_dim;
      copy_kv(k, kv, kv_f32, k_new, static_cast<size_t>(t) * kv);
      copy_kv(k + kv, kv, kv_f32, v_new, static_cast<size_t>(t) * kv);
    }
  });
}

}  // namespace MOTET_NS
