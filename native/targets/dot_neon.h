// Integer dot products of a block and the decoding of codes with NEON; the microkernels around them are those of
// dot_scalar.h, and so are the results, to the bit. sdot where the compiler may use it (-march=armv8.2-a+dotprod).
#pragma once
#define MOTET_OWN_BLOCK_DOT 1

namespace MOTET_NS {

// MXFP4 tile -> int8 codes of twice the value, [block][8][16 rows][4]
static void decode_mxfp4(const uint8_t* tile, int blocks, uint8_t* panel) {
  static const int8_t doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const int8x16_t table = vld1q_s8(doubled);
  for (int j = 0; j < blocks * 4; ++j)
    for (int i = 0; i < 64; i += 16) {
      const uint8x16_t n = vld1q_u8(tile + j * 64 + i);
      vst1q_s8(reinterpret_cast<int8_t*>(panel) + j * 128 + i, vqtbl1q_s8(table, vandq_u8(n, vdupq_n_u8(15))));
      vst1q_s8(reinterpret_cast<int8_t*>(panel) + j * 128 + 64 + i, vqtbl1q_s8(table, vshrq_n_u8(n, 4)));
    }
}

static inline int32x4_t four_rows(int32x4_t acc, int8x16_t w, int8x16_t a) {  // 4 rows x 4 columns
#if __ARM_FEATURE_DOTPROD
  return vdotq_s32(acc, w, a);
#else
  const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(a)), high = vmull_s8(vget_high_s8(w), vget_high_s8(a));
  return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}

static inline F block_dot(const int8_t* w, const int8_t* q) {  // w [8][16][4]
  int32x4_t acc[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
  for (int k = 0; k < 8; ++k) {
    int32_t columns;
    __builtin_memcpy(&columns, q + 4 * k, 4);
    const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(columns));
    for (int i = 0; i < 4; ++i) acc[i] = four_rows(acc[i], vld1q_s8(w + k * 64 + 16 * i), a);
  }
  F r;
  for (int i = 0; i < 4; ++i) r.v[i] = vcvtq_f32_s32(acc[i]);
  return r;
}

static long int8_work(long steps) {
  int32x4_t acc[8];
  for (auto& v : acc) v = vdupq_n_s32(0);
  int8x16_t w = vdupq_n_s8(3), a = vdupq_n_s8(1);
  for (long s = 0; s < steps; ++s) {
    asm volatile("" : "+w"(w), "+w"(a));
    for (auto& v : acc) v = four_rows(v, w, a);
  }
  for (int i = 1; i < 8; ++i) acc[0] = vaddq_s32(acc[0], acc[i]);
  return vaddvq_s32(acc[0]);
}
constexpr long kInt8OpsPerStep = 8L * 16 * 2;

}  // namespace MOTET_NS

#include "targets/dot_scalar.h"
