// A logical vector of 16 floats in four NEON registers; same functions, same rounding as vec_scalar.h.
#pragma once
#include <arm_neon.h>

#include <cstdint>

namespace MOTET_NS {

struct F { float32x4_t v[4]; };

constexpr int kHeadsAtOnce = 2;  // rows of two accumulators each that fit the registers

#define MOTET_EACH(expr) F r; for (int i = 0; i < 4; ++i) r.v[i] = (expr); return r
static inline F vload(const float* p) { MOTET_EACH(vld1q_f32(p + 4 * i)); }
static inline void vstore(float* p, F a) { for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]); }
static inline F vset(float x) { MOTET_EACH(vdupq_n_f32(x)); }
static inline F vadd(F a, F b) { MOTET_EACH(vaddq_f32(a.v[i], b.v[i])); }
static inline F vsub(F a, F b) { MOTET_EACH(vsubq_f32(a.v[i], b.v[i])); }
static inline F vmul(F a, F b) { MOTET_EACH(vmulq_f32(a.v[i], b.v[i])); }
static inline F vdiv(F a, F b) { MOTET_EACH(vdivq_f32(a.v[i], b.v[i])); }
static inline F vfma(F a, F b, F c) { MOTET_EACH(vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
// Selected by comparison, not vmaxq: that one returns NaN where the other targets return b.
static inline F vmax(F a, F b) { MOTET_EACH(vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i])); }
static inline F vmin(F a, F b) { MOTET_EACH(vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i])); }
static inline F vabs(F a) { MOTET_EACH(vabsq_f32(a.v[i])); }
static inline F vround(F a) { MOTET_EACH(vrndnq_f32(a.v[i])); }
static inline F vkeep_ge(F x, F t, F a) { MOTET_EACH(vbslq_f32(vcgeq_f32(x.v[i], t.v[i]), a.v[i], vdupq_n_f32(0.0f))); }
static inline F vscale2(F a, F n) {
  MOTET_EACH(vmulq_f32(a.v[i], vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n.v[i]), vdupq_n_s32(127)), 23))));
}
static inline F vload_bf16(const uint16_t* p) { MOTET_EACH(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16))); }
static inline void vstore_bf16(uint16_t* p, F a) {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t u = vreinterpretq_u32_f32(a.v[i]), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    vst1_u16(p + 4 * i, vshrn_n_u32(vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16));
  }
}
static inline void vload_bf16_pairs(const uint16_t* p, F& even, F& odd) {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t u = vreinterpretq_u32_u16(vld1q_u16(p + 8 * i));
    even.v[i] = vreinterpretq_f32_u32(vshlq_n_u32(u, 16));
    odd.v[i] = vreinterpretq_f32_u32(vandq_u32(u, vdupq_n_u32(0xffff0000u)));
  }
}
static inline F ve8m0_half(const uint8_t* p) {
  const uint8x16_t s = vqsubq_u8(vld1q_u8(p), vdupq_n_u8(1));
  const uint16x8_t low = vmovl_u8(vget_low_u8(s)), high = vmovl_u8(vget_high_u8(s));
  const uint32x4_t w[4] = {vmovl_u16(vget_low_u16(low)), vmovl_u16(vget_high_u16(low)), vmovl_u16(vget_low_u16(high)),
                           vmovl_u16(vget_high_u16(high))};
  MOTET_EACH(vreinterpretq_f32_u32(vshlq_n_u32(w[i], 23)));
}
static inline float vsum(F a) {
  const float32x4_t s = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t t = vadd_f32(vget_low_f32(s), vget_high_f32(s));
  return vget_lane_f32(t, 0) + vget_lane_f32(t, 1);
}
static inline float vtop(F a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3]))); }
static inline void vstore_int8(int8_t* p, F a) {
  int16x4_t h[4];
  for (int i = 0; i < 4; ++i) h[i] = vqmovn_s32(vcvtnq_s32_f32(a.v[i]));
  vst1q_s8(p, vcombine_s8(vqmovn_s16(vcombine_s16(h[0], h[1])), vqmovn_s16(vcombine_s16(h[2], h[3]))));
}
static inline F vload_int8(const int8_t* p) {
  const int8x16_t b = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(b)), high = vmovl_s8(vget_high_s8(b));
  const int32x4_t w[4] = {vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)), vmovl_s16(vget_low_s16(high)),
                          vmovl_s16(vget_high_s16(high))};
  MOTET_EACH(vcvtq_f32_s32(w[i]));
}
#undef MOTET_EACH

}  // namespace MOTET_NS
