// Pages of keys and values (struct KvLayer): where things lie, one position written, two vectors read.
#pragma once

namespace MOTET_NS {

using motet::kPage;

static inline int padded_values(int dim) { return (dim + 31) / 32 * 32; }

// One kv head of one layer in one page.
template <class T>
struct Unit {
  T* keys;        // (D, kPage)
  T* values;      // (kPage, Dv)
  float* scales;  // int8: of keys (kPage), then of values (kPage)
};

template <class T>
static inline Unit<T> unit_of(const motet::KvLayer& kv, uint8_t* page, int head) {
  T* keys = reinterpret_cast<T*>(page + kv.offset + head * kv.unit);
  T* values = keys + static_cast<size_t>(kv.head_dim) * kPage;
  return {keys, values, reinterpret_cast<float*>(values + static_cast<size_t>(kPage) * padded_values(kv.head_dim))};
}

// Where element i of a row is stored.
template <class T>
static inline int slot(int i) { return i; }
template <>
inline int slot<uint16_t>(int i) { return (i & ~31) + 2 * (i & 15) + ((i >> 4) & 1); }

// Elements 0..15 and 16..31 of a stored block of 32.
static inline void load_pair(const float* p, F& a, F& b) { a = vload(p), b = vload(p + 16); }
static inline void load_pair(const uint16_t* p, F& a, F& b) { vload_bf16_pairs(p, a, b); }
static inline void load_pair(const int8_t* p, F& a, F& b) { a = vload_int8(p), b = vload_int8(p + 16); }

// One row of `dim` numbers in the pages' type, with the scale that brings it back.
static inline float encode(const float* x, int dim, float* to) {
  std::memcpy(to, x, static_cast<size_t>(dim) * 4);
  return 1.0f;
}
static inline float encode(const float* x, int dim, uint16_t* to) {
  for (int i = 0; i < dim; i += 16) vstore_bf16(to + i, vload_n(x + i, dim - i));
  return 1.0f;
}
static inline float encode(const float* x, int dim, int8_t* to) {  // scale = max|x| / 127, rounded to nearest even
  F top = vset(0.0f);
  for (int i = 0; i < dim; i += 16) top = vmax(top, vabs(vload_n(x + i, dim - i)));
  const float highest = vtop(top);
  float inverse = highest > 0.0f ? 127.0f / highest : 0.0f;
  if (!(inverse <= 3.0e38f)) inverse = 0.0f;
  for (int i = 0; i < dim; i += 16) vstore_int8(to + i, vround(vmul(vload_n(x + i, dim - i), vset(inverse))));
  return highest / 127.0f;
}

// Keys and values (K, D) of one position, from the step into its page.
template <class T>
static void write_position(const motet::KvLayer& kv, uint8_t* page, int at, const float* k, const float* v, T* row) {
  const int dim = kv.head_dim, wide = padded_values(dim), column = slot<T>(at);
  for (int g = 0; g < kv.kv_heads; ++g, k += dim, v += dim) {
    const Unit<T> unit = unit_of<T>(kv, page, g);
    const float key_scale = encode(k, dim, row);
    for (int i = 0; i < dim; ++i) unit.keys[static_cast<size_t>(i) * kPage + column] = row[i];
    const float value_scale = encode(v, dim, row);
    T* to = unit.values + static_cast<size_t>(at) * wide;
    for (int i = 0; i < dim; ++i) to[slot<T>(i)] = row[i];
    if (kv.kind == motet::Kv::kInt8) unit.scales[at] = key_scale, unit.scales[kPage + at] = value_scale;
  }
}

}  // namespace MOTET_NS
