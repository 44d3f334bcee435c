// exp and sigmoid on logical vectors, and helpers for rows whose length is no multiple of 16.
#pragma once

namespace MOTET_NS {

// e^x, relative error below 2e-7 on [-87, 88]; 0 below -87.3, where float32 would be subnormal.
// Cody-Waite reduction by ln 2 in two parts, then a polynomial of degree 6 on [-ln2/2, ln2/2].
static inline F vexp(F x) {
  const F lowest = vset(-87.3f);
  F c = vmin(vmax(x, lowest), vset(88.3f));
  F n = vround(vmul(c, vset(1.44269504088896341f)));
  F r = vfma(n, vset(-0.693145751953125f), c);
  r = vfma(n, vset(-1.42860682030941723212e-6f), r);
  F p = vset(1.0f / 720.0f);
  p = vfma(p, r, vset(1.0f / 120.0f));
  p = vfma(p, r, vset(1.0f / 24.0f));
  p = vfma(p, r, vset(1.0f / 6.0f));
  p = vfma(p, r, vset(0.5f));
  p = vfma(p, r, vset(1.0f));
  p = vfma(p, r, vset(1.0f));
  // n reaches 127: split the power so that neither factor overflows.
  F half = vround(vmul(n, vset(0.5f)));
  return vkeep_ge(x, lowest, vscale2(vscale2(p, half), vsub(n, half)));
}

// The same bits for x <= 0 (down to -inf), where one power is enough.
static inline F vexp_down(F x) {
  const F lowest = vset(-87.3f);
  F c = vmax(x, lowest);
  F n = vround(vmul(c, vset(1.44269504088896341f)));
  F r = vfma(n, vset(-0.693145751953125f), c);
  r = vfma(n, vset(-1.42860682030941723212e-6f), r);
  F p = vset(1.0f / 720.0f);
  p = vfma(p, r, vset(1.0f / 120.0f));
  p = vfma(p, r, vset(1.0f / 24.0f));
  p = vfma(p, r, vset(1.0f / 6.0f));
  p = vfma(p, r, vset(0.5f));
  p = vfma(p, r, vset(1.0f));
  p = vfma(p, r, vset(1.0f));
  return vkeep_ge(x, lowest, vscale2(p, n));
}

static inline F vsigmoid(F x) { return vdiv(vset(1.0f), vadd(vset(1.0f), vexp(vsub(vset(0.0f), x)))); }

static inline float exp1(float x) {
  float lanes[16];
  vstore(lanes, vexp(vset(x)));
  return lanes[0];
}

// Loads n < 16 floats, zeros behind.
static inline F vload_part(const float* p, int n) {
  float lanes[16] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return vload(lanes);
}
static inline F vload_n(const float* p, int n) { return n >= 16 ? vload(p) : vload_part(p, n); }
static inline void vstore_n(float* p, F v, int n) {
  if (n >= 16) {
    vstore(p, v);
    return;
  }
  float lanes[16];
  vstore(lanes, v);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}

}  // namespace MOTET_NS
