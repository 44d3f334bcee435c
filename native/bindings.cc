// The only file that includes Python. Takes numpy arrays, checks shapes, releases the interpreter lock and calls ops().
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "ops.h"
#include "threads.h"

namespace nb = nanobind;
using namespace motet;

namespace {

template <class T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
using Floats = Array<const float, 2>;
using FloatsOut = Array<float, 2>;
using Vector = Array<const float, 1>;
using Bytes = Array<const uint8_t, 1>;

void require(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

// A packed matrix with the arrays it points into kept alive (they may be memory maps).
// While an op runs, Python goes on; a second model's thread waits its turn, because the worker threads are shared.
struct Turn {
  nb::gil_scoped_release release;
  std::lock_guard<std::mutex> lock{one_at_a_time()};
  static std::mutex& one_at_a_time() {
    static std::mutex mutex;
    return mutex;
  }
};

struct Packed {
  Matrix m;
  Bytes data;
  std::optional<Bytes> scales;
};

Packed make_packed(int kind, int count, int rows, int cols, int tiles, Bytes data, std::optional<Bytes> scales) {
  Matrix m{};
  m.kind = static_cast<Kind>(kind);
  m.count = count, m.rows = rows, m.cols = cols, m.tiles = tiles;
  m.blocks = (cols + kBlock - 1) / kBlock;
  require(kind >= 0 && kind <= 3, "kind must be 0 (mxfp4), 1 (int8), 2 (bf16) or 3 (f32)");
  require(rows > 0 && cols > 0 && count > 0 && tiles * kTile >= rows, "sizes must be positive and tiles must cover the rows");
  const size_t per_block[] = {256, 512, 1024, 2048}, scale_bytes[] = {16, 32, 0, 0};
  m.data_tile = m.blocks * per_block[kind];
  m.scale_tile = m.blocks * scale_bytes[kind];
  const size_t all = static_cast<size_t>(count) * tiles;
  require(data.size() == all * m.data_tile, "packed data has the wrong size");
  require((scales ? scales->size() : 0) == all * m.scale_tile, "packed scales have the wrong size");
  m.data = data.data();
  m.scales = scales ? scales->data() : nullptr;
  return {m, data, scales};
}

// Quantised or padded activations; owns its memory.
struct Activations {
  int cols = 0;
  std::vector<int8_t> q;
  std::vector<float> scale, x;
  std::vector<int32_t> sum, pair;
  Acts acts{};
};

Activations quantized(Floats x) {
  Activations a;
  a.cols = static_cast<int>(x.shape(1));
  a.acts.rows = static_cast<int>(x.shape(0));
  a.acts.blocks = (a.cols + kBlock - 1) / kBlock;
  const size_t n = static_cast<size_t>(a.acts.rows) * a.acts.blocks;
  a.q.resize(n * kBlock), a.scale.resize(n), a.sum.resize(n), a.pair.resize(n);
  {
    Turn turn;
    ops().quantize(x.data(), a.acts.rows, a.cols, a.q.data(), a.scale.data(), a.sum.data(), a.pair.data());
  }
  a.acts.q = a.q.data(), a.acts.scale = a.scale.data(), a.acts.sum = a.sum.data(), a.acts.pair = a.pair.data();
  return a;
}

Activations padded(Floats x, bool round_bf16) {
  Activations a;
  a.cols = static_cast<int>(x.shape(1));
  a.acts.rows = static_cast<int>(x.shape(0));
  a.acts.blocks = (a.cols + kBlock - 1) / kBlock;
  a.x.resize(static_cast<size_t>(a.acts.rows) * a.acts.blocks * kBlock);
  {
    Turn turn;
    ops().pad(x.data(), a.acts.rows, a.cols, round_bf16, a.x.data());
  }
  a.acts.x = a.x.data();
  return a;
}

void check_kinds(const Matrix& w, const Acts& a) {
  require(!a.q || w.kind == Kind::kMxfp4 || w.kind == Kind::kInt8, "int8 activations need mxfp4 or int8 weights");
}

void rms_norm(Floats x, Vector gain, float eps, FloatsOut out) {
  require(gain.shape(0) == x.shape(1) && out.shape(0) == x.shape(0) && out.shape(1) == x.shape(1), "rms_norm: shapes differ");
  Turn turn;
  ops().rms_norm(x.data(), gain.data(), eps, static_cast<int>(x.shape(0)), static_cast<int>(x.shape(1)), out.data());
}

void linear(const Packed& w, const Activations& a, std::optional<Vector> bias, bool accumulate, FloatsOut out) {
  require(w.m.count == 1 && w.m.cols == a.cols, "linear: weight columns and activation columns differ");
  require(static_cast<int>(out.shape(0)) == a.acts.rows && static_cast<int>(out.shape(1)) == w.m.rows, "linear: output shape is wrong");
  require(!bias || static_cast<int>(bias->shape(0)) == w.m.rows, "linear: bias length is wrong");
  check_kinds(w.m, a.acts);
  Turn turn;
  ops().linear(w.m, a.acts, bias ? bias->data() : nullptr, accumulate, out.data());
}

// Where the keys and values of a step's sequences lie, for the layers that share page tables.
struct Paged {
  Kv kind{};
  int layers = 0, kv_heads = 0, head_dim = 0, tokens = 0;
  size_t unit = 0;
  std::vector<uint8_t*> pages;
  std::vector<Span> spans;  // point into `pages`
  Paged() = default;
  Paged(Paged&&) = default;
  KvLayer layer(int n) const { return {kind, kv_heads, head_dim, static_cast<size_t>(n) * kv_heads * unit, unit}; }
};

Paged make_paged(int kind, int layers, int kv_heads, int head_dim, long unit, Array<const int64_t, 1> pages, Array<const int64_t, 2> spans) {
  require(kind >= 0 && kind <= 2 && layers > 0 && kv_heads > 0 && head_dim > 0 && unit > 0 && unit % 64 == 0, "pages: bad layout");
  require(spans.shape(1) == 5, "pages: a span is row, tokens, start, first page, pages");
  Paged p;
  p.kind = static_cast<Kv>(kind);
  p.layers = layers, p.kv_heads = kv_heads, p.head_dim = head_dim, p.unit = static_cast<size_t>(unit);
  for (size_t i = 0; i < pages.size(); ++i) p.pages.push_back(reinterpret_cast<uint8_t*>(pages.data()[i]));
  size_t at = 0;
  for (size_t i = 0; i < spans.shape(0); ++i) {
    const int64_t* s = spans.data() + 5 * i;
    require(s[0] == p.tokens && s[1] > 0 && s[2] >= 0 && s[3] >= 0 && s[4] > 0, "pages: spans must follow each other and hold tokens");
    require(s[3] * kPage <= s[2] && s[2] + s[1] <= (s[3] + s[4]) * kPage && at + s[4] <= p.pages.size(), "pages: a span's positions have no page");
    p.spans.push_back({static_cast<int>(s[0]), static_cast<int>(s[1]), s[2], s[3], p.pages.data() + at});
    at += static_cast<size_t>(s[4]);
    p.tokens += static_cast<int>(s[1]);
  }
  return p;
}

void rope(FloatsOut qkv, Floats cos, Floats sin, int heads, const Paged& pages, int layer) {
  RopeArgs a{qkv.data(), cos.data(), sin.data(), pages.layer(layer), pages.spans.data(), static_cast<int>(pages.spans.size()), heads};
  const size_t tokens = qkv.shape(0);
  require(layer >= 0 && layer < pages.layers, "rope: no such layer in the pages");
  require(static_cast<int>(tokens) == pages.tokens && static_cast<int>(qkv.shape(1)) == (heads + 2 * pages.kv_heads) * pages.head_dim, "rope: qkv shape is wrong");
  require(cos.shape(0) == tokens && static_cast<int>(cos.shape(1)) == pages.head_dim / 2 && sin.shape(0) == tokens && sin.shape(1) == cos.shape(1), "rope: table shape is wrong");
  Turn turn;
  ops().rope(a);
}

void attention(Floats q, int heads, const Paged& pages, int layer, int window, Vector sinks, FloatsOut out) {
  AttentionArgs a{};
  a.q = q.data();
  a.q_stride = static_cast<long>(q.shape(1));
  a.kv = pages.layer(layer);
  a.spans = pages.spans.data(), a.count = static_cast<int>(pages.spans.size());
  a.heads = heads;
  a.window = window;
  a.sinks = sinks.data();
  a.out = out.data();
  require(layer >= 0 && layer < pages.layers, "attention: no such layer in the pages");
  require(heads % pages.kv_heads == 0 && static_cast<int>(q.shape(1)) >= heads * pages.head_dim, "attention: q is too narrow");
  require(static_cast<int>(q.shape(0)) == pages.tokens && static_cast<int>(sinks.shape(0)) == heads && static_cast<int>(out.shape(0)) == pages.tokens &&
              static_cast<int>(out.shape(1)) == heads * pages.head_dim, "attention: shapes differ");
  for (const Span& s : pages.spans) {
    const long lowest = window > 0 && s.start + 1 > window ? s.start + 1 - window : 0;
    require(s.first * kPage <= lowest, "attention: pages inside the window are missing");
  }
  Turn turn;
  ops().attention(a);
}

void route(Floats logits, Array<int32_t, 2> ids, FloatsOut weights) {
  const int k = static_cast<int>(ids.shape(1));
  require(ids.shape(0) == logits.shape(0) && weights.shape(0) == ids.shape(0) && static_cast<int>(weights.shape(1)) == k &&
              k >= 1 && k <= static_cast<int>(logits.shape(1)), "route: shapes differ or k exceeds the experts");
  Turn turn;
  ops().route(logits.data(), static_cast<int>(logits.shape(0)), static_cast<int>(logits.shape(1)), k, ids.data(), weights.data());
}

void moe(FloatsOut x, const Activations& acts, Array<const int32_t, 2> ids, Floats weights, const Packed& w1, Floats b1_gate,
         Floats b1_up, const Packed& w2, Floats b2, float alpha, float limit, bool round_bf16) {
  MoeArgs a{};
  a.acts = acts.acts;
  a.ids = ids.data(), a.weights = weights.data();
  a.tokens = static_cast<int>(x.shape(0));
  a.k = static_cast<int>(ids.shape(1));
  a.w1 = w1.m, a.w2 = w2.m;
  a.b1_gate = b1_gate.data(), a.b1_up = b1_up.data(), a.b2 = b2.data();
  a.width = w2.m.cols, a.hidden = static_cast<int>(x.shape(1));
  a.alpha = alpha, a.limit = limit, a.round_bf16 = round_bf16;
  a.x = x.data();
  const size_t experts = w1.m.count, width = a.width;
  require(acts.acts.rows == a.tokens && acts.cols == w1.m.cols && acts.cols == a.hidden && static_cast<int>(w2.m.rows) == a.hidden, "moe: widths differ");
  require(w2.m.count == w1.m.count && w1.m.tiles % 2 == 0 && w1.m.tiles / 2 == (a.width + kTile - 1) / kTile, "moe: w1 must hold gate and up tiles alternately");
  require(b1_gate.shape(0) == experts && b1_gate.shape(1) == width && b1_up.size() == b1_gate.size() &&
              b2.shape(0) == experts && static_cast<int>(b2.shape(1)) == a.hidden, "moe: bias shapes differ");
  require(static_cast<int>(ids.shape(0)) == a.tokens && weights.size() == ids.size(), "moe: routing shapes differ");
  for (size_t i = 0; i < ids.size(); ++i) require(a.ids[i] >= 0 && a.ids[i] < w1.m.count, "moe: expert id out of range");
  check_kinds(w1.m, a.acts);
  check_kinds(w2.m, a.acts);
  Turn turn;
  ops().moe(a);
}

// Copies for the numpy twin and the tests.
nb::object export_acts(const Activations& a) {
  auto copy = [&](const auto& v, size_t cols) -> nb::object {
    using T = std::decay_t<decltype(v[0])>;
    if (v.empty()) return nb::none();
    T* data = new T[v.size()];
    std::copy(v.begin(), v.end(), data);
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<2>>(data, {static_cast<size_t>(a.acts.rows), cols}, owner));
  };
  const size_t blocks = a.acts.blocks;
  nb::dict d;
  d["q"] = copy(a.q, blocks * kBlock), d["scale"] = copy(a.scale, blocks), d["sum"] = copy(a.sum, blocks);
  d["pair"] = copy(a.pair, blocks), d["x"] = copy(a.x, blocks * kBlock);
  return d;
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "motet's kernels. Use motet.kernels, which names each op and its numpy twin.";
  nb::class_<Packed>(m, "Packed");
  nb::class_<Activations>(m, "Activations")
      .def_ro("cols", &Activations::cols)
      .def_prop_ro("rows", [](const Activations& a) { return a.acts.rows; })
      .def("arrays", &export_acts);
  m.def("packed", &make_packed, nb::arg("kind"), nb::arg("count"), nb::arg("rows"), nb::arg("cols"), nb::arg("tiles"),
        nb::arg("data"), nb::arg("scales").none());
  m.def("quantize", &quantized, nb::arg("x"));
  m.def("pad", &padded, nb::arg("x"), nb::arg("round_bf16"));
  m.def("rms_norm", &rms_norm);
  m.def("linear", &linear, nb::arg("w"), nb::arg("a"), nb::arg("bias").none(), nb::arg("accumulate"), nb::arg("out"));
  nb::class_<Paged>(m, "Paged");
  m.def("paged", &make_paged, nb::arg("kind"), nb::arg("layers"), nb::arg("kv_heads"), nb::arg("head_dim"), nb::arg("unit"),
        nb::arg("pages"), nb::arg("spans"));
  m.def("rope", &rope);
  m.def("attention", &attention);
  m.def("route", &route);
  m.def("moe", &moe);
  m.def("isa", [] { return std::string(ops().name); });
  m.def("set_isa", [](const std::string& name) { set_isa(name.c_str()); });
  m.def("isas", [] {
    const char* names[8];
    return std::vector<std::string>(names, names + available_isas(names, 8));
  });
  m.def("threads", &thread_count);
  m.def("set_threads", &set_thread_count);
  m.def("read_rate", [](Bytes data) {
    Turn turn;
    return ops().read_rate(data.data(), data.size());
  });
  m.def("int8_rate", [](long steps) {
    Turn turn;
    ops().int8_rate(steps);
    return static_cast<double>(steps) * static_cast<double>(ops().int8_ops_per_step) * thread_count();
  });
  m.def("bf16_rate", [](long steps) {
    Turn turn;
    ops().bf16_rate(steps);
    return static_cast<double>(steps) * static_cast<double>(ops().bf16_ops_per_step) * thread_count();
  });
}
