// The mixture of experts (model.md 2.5): x += sum over the chosen experts of weight * (W2 act(W1 t + b1) + b2), with the
// clamped SwiGLU act(gate, up) = gate' sigmoid(alpha gate') (up' + 1).
//
// (token, slot) pairs are sorted by expert, so each expert's weights are read once for all tokens that chose it; the sum
// over slots is done per token in slot order, so a token's bits do not depend on its neighbours.
#pragma once

namespace MOTET_NS {

static F swiglu(F gate, F up, float alpha, float limit) {
  gate = vmin(gate, vset(limit));
  up = vmin(vmax(up, vset(-limit)), vset(limit));
  return vmul(vmul(gate, vsigmoid(vmul(gate, vset(alpha)))), vadd(up, vset(1.0f)));
}

struct MoePlan {
  std::vector<int32_t> row, place;  // entry -> token; token * k + slot -> entry
  std::vector<long> begin;          // entries of expert e: [begin[e], begin[e + 1])
  std::vector<int32_t> used;        // experts with entries
};

static void plan_moe(const motet::MoeArgs& a, MoePlan& plan) {
  const long n = static_cast<long>(a.tokens) * a.k;
  const int experts = a.w1.count;
  plan.row.resize(n);
  plan.place.resize(n);
  plan.begin.assign(experts + 1, 0);
  plan.used.clear();
  for (long i = 0; i < n; ++i) ++plan.begin[a.ids[i] + 1];
  for (int e = 0; e < experts; ++e) {
    if (plan.begin[e + 1]) plan.used.push_back(e);
    plan.begin[e + 1] += plan.begin[e];
  }
  std::vector<long> next(plan.begin.begin(), plan.begin.end() - 1);
  for (long i = 0; i < n; ++i) {
    const long entry = next[a.ids[i]]++;
    plan.row[entry] = static_cast<int32_t>(i / a.k);
    plan.place[i] = static_cast<int32_t>(entry);
  }
}

// hidden (entries, I) = act(W1 t + b1): a work item is a gate tile and its up tile for one expert.
static void moe_up(const motet::MoeArgs& a, const MoePlan& plan, float* hidden) {
  const long pairs = a.w1.tiles / 2;
  motet::parallel_for(static_cast<long>(plan.used.size()) * pairs, [&](long item, int worker) {
    const int e = plan.used[item / pairs], pair = static_cast<int>(item % pairs), col = pair * 16;
    const int width = a.width - col < 16 ? a.width - col : 16;
    const long begin = plan.begin[e], n = plan.begin[e + 1] - begin;
    const F b_gate = vload_n(a.b1_gate + static_cast<size_t>(e) * a.width + col, width);
    const F b_up = vload_n(a.b1_up + static_cast<size_t>(e) * a.width + col, width);
    auto row_of = [&](long i) { return static_cast<long>(plan.row[begin + i]); };
    auto at = [&](long i) { return hidden + static_cast<size_t>(begin + i) * a.width + col; };
    run_tile(a.w1, e, 2 * pair, a.acts, n, row_of, worker, [&](long first, int count, const float* values) {
      for (int i = 0; i < count; ++i) vstore_n(at(first + i), vadd(vload(values + i * 16), b_gate), width);
    });
    run_tile(a.w1, e, 2 * pair + 1, a.acts, n, row_of, worker, [&](long first, int count, const float* values) {
      for (int i = 0; i < count; ++i) {
        float* h = at(first + i);
        vstore_n(h, swiglu(vload_n(h, width), vadd(vload(values + i * 16), b_up), a.alpha, a.limit), width);
      }
    });
  });
}

// y (entries, d) = W2 hidden + b2
static void moe_down(const motet::MoeArgs& a, const MoePlan& plan, const motet::Acts& hidden, float* y) {
  constexpr long group = 2;
  const long groups = (a.w2.tiles + group - 1) / group;
  motet::parallel_for(static_cast<long>(plan.used.size()) * groups, [&](long item, int worker) {
    const int e = plan.used[item / groups];
    const long begin = plan.begin[e], n = plan.begin[e + 1] - begin, from = item % groups * group;
    for (long t = from; t < from + group && t < a.w2.tiles; ++t) {
      const int col = static_cast<int>(t) * 16, width = a.hidden - col < 16 ? a.hidden - col : 16;
      const F bias = vload_n(a.b2 + static_cast<size_t>(e) * a.hidden + col, width);
      run_tile(a.w2, e, static_cast<int>(t), hidden, n, [&](long i) { return begin + i; }, worker,
               [&](long first, int count, const float* values) {
                 for (int i = 0; i < count; ++i)
                   vstore_n(y + static_cast<size_t>(begin + first + i) * a.hidden + col, vadd(vload(values + i * 16), bias), width);
               });
    }
  });
}

static void moe(const motet::MoeArgs& a) {
  // Kept between calls: one thread owns the model, and at decode the allocations would cost more than the sums.
  static MoePlan plan;
  static std::vector<float> hidden, y, scale, padded;
  static std::vector<int8_t> q;
  static std::vector<int32_t> sum, pair;
  plan_moe(a, plan);
  const size_t entries = plan.row.size(), blocks = a.w2.blocks;
  if (hidden.size() < entries * a.width) hidden.resize(entries * a.width);
  if (y.size() < entries * a.hidden) y.resize(entries * a.hidden);
  moe_up(a, plan, hidden.data());
  motet::Acts acts{};
  acts.rows = static_cast<int>(entries);
  acts.blocks = static_cast<int>(blocks);
  if (a.acts.q) {
    if (scale.size() < entries * blocks) {
      q.resize(entries * blocks * motet::kBlock);
      scale.resize(entries * blocks);
      sum.resize(entries * blocks);
      pair.resize(entries * blocks);
    }
    quantize(hidden.data(), acts.rows, a.width, q.data(), scale.data(), sum.data(), pair.data());
    acts.q = q.data(), acts.scale = scale.data(), acts.sum = sum.data(), acts.pair = pair.data();
  } else {
    if (padded.size() < entries * blocks * motet::kBlock) padded.resize(entries * blocks * motet::kBlock);
    pad(hidden.data(), acts.rows, a.width, a.round_bf16, padded.data());
    acts.x = padded.data();
  }
  moe_down(a, plan, acts, y.data());
  motet::parallel_for((a.tokens + 7) / 8, [&](long group, int) {
    for (long t = group * 8; t < a.tokens && t < (group + 1) * 8; ++t)
      for (int i = 0; i < a.hidden; i += 16) {
        float* x = a.x + static_cast<size_t>(t) * a.hidden + i;
        F total = vset(0.0f);
        for (int s = 0; s < a.k; ++s) {
          const size_t entry = plan.place[t * a.k + s];
          total = vfma(vset(a.weights[t * a.k + s]), vload_n(y.data() + entry * a.hidden + i, a.hidden - i), total);
        }
        vstore_n(x, vadd(vload_n(x, a.hidden - i), total), a.hidden - i);
      }
  });
}

}  // namespace MOTET_NS
