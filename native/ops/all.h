// Every op of one target, as a table. Included once by each file in targets/, after MOTET_NS and the vectors.
#pragma once
#include <vector>

#include "ops.h"
#include "threads.h"
#include "ops/math.h"
#include "ops/rms_norm.h"
#include "ops/quantize.h"
#include "ops/packed.h"
#include "ops/gemm.h"
#include "ops/linear.h"
#include "ops/kv.h"
#include "ops/rope.h"
#include "ops/attention.h"
#include "ops/route.h"
#include "ops/moe.h"

namespace MOTET_NS {

static double read_rate(const uint8_t* data, size_t bytes) {
  constexpr size_t piece = 1 << 20;
  const long pieces = static_cast<long>(bytes / piece);
  std::vector<uint64_t> sums(pieces);
  motet::parallel_for(pieces, [&](long i, int) { sums[i] = read_work(data + i * piece, piece); });
  double total = 0;
  for (uint64_t s : sums) total += static_cast<double>(s);
  return total;
}

template <class Work>
static double in_every_thread(Work work) {
  const int n = motet::thread_count();
  std::vector<double> sums(n);
  motet::parallel_for(n, [&](long i, int) { sums[i] = static_cast<double>(work()); });
  double total = 0;
  for (double s : sums) total += s;
  return total;
}

static double int8_rate(long steps) {
  return in_every_thread([=] { return int8_work(steps); });
}

static double bf16_rate(long steps) {
  return in_every_thread([=] { return bf16_work(steps); });
}

static const motet::Ops& table(const char* name) {
  static const motet::Ops ops{name, rms_norm, quantize, pad, linear, rope, attention, route, moe, read_rate, int8_rate, bf16_rate,
                              kInt8OpsPerStep, kBf16OpsPerStep};
  return ops;
}

}  // namespace MOTET_NS
