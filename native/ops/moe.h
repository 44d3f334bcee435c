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
  std::vector<long> group;          // of expert e, where its gathered tokens begin; the last one: how many groups in all
};

static void plan_moe(const motet::MoeArgs& a, MoePlan& plan) {
  const long n = static_cast<long>(a.tokens) * a.k;
  const int experts = a.w1.count;
  plan.row.resize(n);
  plan.place.resize(n);
  plan.begin.assign(experts + 1, 0);
  plan.used.clear();
  for (long i = 0; i < n; ++i) ++plan.begin[a.ids[i] + 1];
  plan.group.assign(experts + 1, 0);
  for (int e = 0; e < experts; ++e) {
    const long count = plan.begin[e + 1];
    if (count) plan.used.push_back(e);
    plan.group[e + 1] = plan.group[e] + (packs(a.w1, a.acts, count) ? groups_of(count) : 0);
    plan.begin[e + 1] += plan.begin[e];
  }
  std::vector<long> next(plan.begin.begin(), plan.begin.end() - 1);
  for (long i = 0; i < n; ++i) {
    const long entry = next[a.ids[i]]++;
    plan.row[entry] = static_cast<int32_t>(i / a.k);
    plan.place[i] = static_cast<int32_t>(entry);
  }
}

// The tokens of each used expert, those of experts with many gathered into `packed`. `index`: entry -> row of acts, or
// null where entries are rows already.
static void rows_of(const MoePlan& plan, const motet::Acts& acts, motet::Kind kind, const int32_t* index, Packed& packed,
                    std::vector<int32_t>& own, std::vector<Rows>& rows) {
  const long groups = plan.group.back();
  packed.resize(groups, acts.blocks);
  if (!index) {
    for (size_t i = own.size(); i < plan.row.size(); ++i) own.push_back(static_cast<int32_t>(i));
    index = own.data();
  }
  rows.clear();
  for (int e : plan.used) {
    const bool many = plan.group[e + 1] > plan.group[e];
    rows.push_back({&acts, index + plan.begin[e], plan.begin[e + 1] - plan.begin[e], many ? &packed : nullptr, plan.group[e]});
  }
  motet::parallel_for(groups, [&](long g, int) {
    size_t i = 0;
    while (plan.group[plan.used[i] + 1] <= g) ++i;
    gather(rows[i], kind, g - rows[i].first_group);
  });
}

// hidden (entries, I) = act(W1 t + b1): a work item is a gate tile and its up tile for one expert.
static void moe_up(const motet::MoeArgs& a, const MoePlan& plan, const std::vector<Rows>& rows, float* hidden) {
  const long pairs = a.w1.tiles / 2;
  motet::parallel_for(static_cast<long>(plan.used.size()) * pairs, [&](long item, int worker) {
    const int e = plan.used[item / pairs], pair = static_cast<int>(item % pairs), col = pair * 16;
    const int width = a.width - col < 16 ? a.width - col : 16;
    const F b_gate = vload_n(a.b1_gate + static_cast<size_t>(e) * a.width + col, width);
    const F b_up = vload_n(a.b1_up + static_cast<size_t>(e) * a.width + col, width);
    float* to = hidden + static_cast<size_t>(plan.begin[e]) * a.width + col;
    run_panel(a.w1, e, 2 * pair, 2, rows[item / pairs], worker, [&](long first, long count, const float* values) {
      for (long i = 0; i < count; ++i, values += kOut)
        vstore_n(to + static_cast<size_t>(first + i) * a.width,
                 swiglu(vadd(vload(values), b_gate), vadd(vload(values + 16), b_up), a.alpha, a.limit), width);
    });
  });
}

// y (entries, d) = W2 hidden + b2
static void moe_down(const motet::MoeArgs& a, const MoePlan& plan, const std::vector<Rows>& rows, float* y) {
  const long panels = (a.w2.tiles + 1) / 2;
  motet::parallel_for(static_cast<long>(plan.used.size()) * panels, [&](long item, int worker) {
    const int e = plan.used[item / panels], t = static_cast<int>(item % panels) * 2, col = t * 16;
    const int n_tiles = a.w2.tiles - t < 2 ? 1 : 2;
    F bias[2];
    for (int i = 0; i < n_tiles; ++i) bias[i] = vload_n(a.b2 + static_cast<size_t>(e) * a.hidden + col + 16 * i, a.hidden - col - 16 * i);
    float* to = y + static_cast<size_t>(plan.begin[e]) * a.hidden + col;
    run_panel(a.w2, e, t, n_tiles, rows[item / panels], worker, [&](long first, long count, const float* values) {
      for (long j = 0; j < count; ++j)
        for (int i = 0; i < n_tiles; ++i)
          vstore_n(to + static_cast<size_t>(first + j) * a.hidden + 16 * i, vadd(vload(values + j * kOut + i * 16), bias[i]),
                   a.hidden - col - 16 * i);
    });
  });
}

static void moe(const motet::MoeArgs& a) {
  // Kept between calls: one thread owns the model, and at decode the allocations would cost more than the sums.
  static MoePlan plan;
  static std::vector<float> hidden, y, scale, padded;
  static std::vector<int8_t> q;
  static std::vector<int32_t> sum, pair, own;
  static Packed packed;
  static std::vector<Rows> rows;
  plan_moe(a, plan);
  const size_t entries = plan.row.size(), blocks = a.w2.blocks;
  if (hidden.size() < entries * a.width) hidden.resize(entries * a.width);
  if (y.size() < entries * a.hidden) y.resize(entries * a.hidden);
  rows_of(plan, a.acts, a.w1.kind, plan.row.data(), packed, own, rows);
  moe_up(a, plan, rows, hidden.data());
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
  rows_of(plan, acts, a.w2.kind, nullptr, packed, own, rows);
  moe_down(a, plan, rows, y.data());
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
