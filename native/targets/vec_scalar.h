// A logical vector of 16 floats in plain C++. Every target offers the same functions with the same rounding, so
// results have the same bits on every instruction set.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace MOTET_NS {

struct F { float v[16]; };

#define MOTET_EACH(expr) F r; for (int i = 0; i < 16; ++i) r.v[i] = (expr); return r
constexpr int kHeadsAtOnce = 4;  // rows of two accumulators each that fit the registers

static inline F vload(const float* p) { MOTET_EACH(p[i]); }
static inline void vstore(float* p, F a) { for (int i = 0; i < 16; ++i) p[i] = a.v[i]; }
static inline F vset(float x) { MOTET_EACH(x); }
static inline F vadd(F a, F b) { MOTET_EACH(a.v[i] + b.v[i]); }
static inline F vsub(F a, F b) { MOTET_EACH(a.v[i] - b.v[i]); }
static inline F vmul(F a, F b) { MOTET_EACH(a.v[i] * b.v[i]); }
static inline F vdiv(F a, F b) { MOTET_EACH(a.v[i] / b.v[i]); }
static inline F vfma(F a, F b, F c) { MOTET_EACH(__builtin_fmaf(a.v[i], b.v[i], c.v[i])); }
static inline F vmax(F a, F b) { MOTET_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
static inline F vmin(F a, F b) { MOTET_EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
static inline F vabs(F a) { MOTET_EACH(std::fabs(a.v[i])); }
static inline F vround(F a) { MOTET_EACH(std::nearbyintf(a.v[i])); }
// lanes of `a` where x >= t, else 0
static inline F vkeep_ge(F x, F t, F a) { MOTET_EACH(x.v[i] >= t.v[i] ? a.v[i] : 0.0f); }
// a * 2^n for integral n in [-126, 127]
static inline F vscale2(F a, F n) {
  F r;
  for (int i = 0; i < 16; ++i) {
    uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23;
    float two_n;
    std::memcpy(&two_n, &bits, 4);
    r.v[i] = a.v[i] * two_n;
  }
  return r;
}
static inline F vload_bf16(const uint16_t* p) {
  F r;
  for (int i = 0; i < 16; ++i) {
    uint32_t bits = static_cast<uint32_t>(p[i]) << 16;
    std::memcpy(&r.v[i], &bits, 4);
  }
  return r;
}
static inline void vstore_bf16(uint16_t* p, F a) {  // round to nearest even
  for (int i = 0; i < 16; ++i) {
    uint32_t bits;
    std::memcpy(&bits, &a.v[i], 4);
    p[i] = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
}
// 16 rows x 2 columns of bf16 -> the even and the odd column
static inline void vload_bf16_pairs(const uint16_t* p, F& even, F& odd) {
  for (int i = 0; i < 16; ++i) {
    uint32_t e = static_cast<uint32_t>(p[2 * i]) << 16, o = static_cast<uint32_t>(p[2 * i + 1]) << 16;
    std::memcpy(&even.v[i], &e, 4);
    std::memcpy(&odd.v[i], &o, 4);
  }
}
static inline F ve8m0_half(const uint8_t* p) {  // 2^(s - 128): the block scale, halved for doubled E2M1 codes
  F r;
  for (int i = 0; i < 16; ++i) {
    uint32_t bits = (p[i] ? static_cast<uint32_t>(p[i]) - 1 : 0) << 23;
    std::memcpy(&r.v[i], &bits, 4);
  }
  return r;
}
static inline float vsum(F a) {  // fixed tree: 8 apart, 4, 2, 1
  for (int step = 8; step; step /= 2)
    for (int i = 0; i < step; ++i) a.v[i] = a.v[i] + a.v[i + step];
  return a.v[0];
}
static inline float vtop(F a) {
  float m = a.v[0];
  for (int i = 1; i < 16; ++i) m = a.v[i] > m ? a.v[i] : m;
  return m;
}
static inline void vstore_int8(int8_t* p, F a) {  // integral values in [-127, 127]
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}
static inline F vload_int8(const int8_t* p) {
  F r;
  for (int i = 0; i < 16; ++i) r.v[i] = p[i];
  return r;
}
#undef MOTET_EACH

}  // namespace MOTET_NS
