// The border between the Python bindings and the kernels: plain structs of pointers and sizes, and one table of
// functions per instruction set. Knows no Python. Shapes are row-major; T = tokens, K = input width, R = output rows.
#pragma once
#include <cstddef>
#include <cstdint>

namespace motet {

constexpr int kTile = 16;   // output rows packed together; also the lanes of a logical vector
constexpr int kBlock = 32;  // input columns that share a scale (MXFP4 and int8)

enum class Kind : int { kMxfp4 = 0, kInt8 = 1, kBf16 = 2, kF32 = 3 };

// A packed weight matrix (or `count` of them, one after the other). Rows are padded to kTile, columns to kBlock.
//   mxfp4  data [tile][block][4][16 rows][4] bytes: low nibble column 8j+i, high nibble column 8j+4+i; scales [tile][block][16] E8M0
//   int8   data [tile][block][8][16 rows][4] int8;  scales [tile][block][16] bf16
//   bf16   data [tile][K/2][16 rows][2] uint16
//   f32    data [tile][K][16 rows] float
struct Matrix {
  Kind kind;
  int count, rows, cols;    // logical sizes of one matrix
  int tiles, blocks;        // padded: tiles * kTile rows, blocks * kBlock columns
  const uint8_t* data;
  const uint8_t* scales;    // null for bf16 and f32
  size_t data_tile, scale_tile;  // bytes of one tile
  const uint8_t* tile_data(int m, int t) const { return data + (static_cast<size_t>(m) * tiles + t) * data_tile; }
  const uint8_t* tile_scales(int m, int t) const { return scales + (static_cast<size_t>(m) * tiles + t) * scale_tile; }
};

// Activations, either int8 blocks (q != null) or float32 (x != null), padded to blocks * kBlock columns with zeros.
struct Acts {
  const int8_t* q;       // (T, Kp)
  const float* scale;    // (T, blocks)
  const int32_t* sum;    // (T, blocks) sum of the block's int8 values
  const int32_t* pair;   // (T, blocks) two int16: -12 * sums over columns 0,1 mod 4 and 2,3 mod 4 (see avx2.cc)
  const float* x;        // (T, Kp)
  int rows, blocks;
};

constexpr int kPage = 64;  // positions in a page of keys and values, cut at absolute positions

enum class Kv : int { kBf16 = 0, kF32 = 1, kInt8 = 2 };

// Keys and values of one layer, in pages of kPage positions. A page holds, per kv head, a unit of `unit` bytes at
// `offset` + head * unit: keys (D, kPage), values (kPage, Dv), Dv = D rounded up to 32; int8 adds a float scale per position
// for the keys and then for the values (kPage each). bf16 rows lie in blocks of 32 with elements i and 16 + i as
// neighbours: one load and two shifts give two vectors.
struct KvLayer {
  Kv kind;
  int kv_heads, head_dim;
  size_t offset, unit;
};

// Consecutive positions of one sequence inside a batch: rows [row, row + tokens) are positions start.. ;
// pages[i] holds positions [(first + i) * kPage, (first + i + 1) * kPage).
struct Span {
  int row, tokens;
  long start, first;
  uint8_t* const* pages;
};

struct RopeArgs {
  float* qkv;             // (T, (H + 2K) D): q and k are rotated in place, k and v enter the pages
  const float *cos, *sin; // (T, D / 2)
  KvLayer kv;
  const Span* spans;
  int count, heads;
};

struct AttentionArgs {
  const float* q;         // (T, H * D) inside rows of q_stride floats
  long q_stride;
  KvLayer kv;
  const Span* spans;      // keys of the spans' own positions are in the pages already
  int count, heads;
  int window;             // 0 = full attention; else keys q-window+1 .. q
  const float* sinks;     // (H)
  float* out;             // (T, H * D)
};

struct MoeArgs {
  Acts acts;              // (T, d) normed input
  const int32_t* ids;     // (T, k) expert of each slot
  const float* weights;   // (T, k)
  int tokens, k;
  Matrix w1, w2;          // w1: per expert, gate rows in even tiles and up rows in odd tiles; w2: (d, I)
  const float *b1_gate, *b1_up;  // (E, I)
  const float* b2;        // (E, d)
  int width, hidden;      // I, d
  float alpha, limit;
  bool round_bf16;        // float activations: round the expert's hidden state to bf16
  float* x;               // (T, d) residual stream, added to
};

struct Ops {
  const char* name;
  void (*rms_norm)(const float* x, const float* gain, float eps, int rows, int cols, float* out);
  void (*quantize)(const float* x, int rows, int cols, int8_t* q, float* scale, int32_t* sum, int32_t* pair);
  void (*pad)(const float* x, int rows, int cols, bool round_bf16, float* out);
  void (*linear)(const Matrix& w, const Acts& a, const float* bias, bool accumulate, float* out);
  void (*rope)(const RopeArgs& args);
  void (*attention)(const AttentionArgs& args);
  void (*route)(const float* logits, int rows, int experts, int k, int32_t* ids, float* weights);
  void (*moe)(const MoeArgs& args);
  double (*read_rate)(const uint8_t* data, size_t bytes);  // a checksum; the caller takes the time
  // Dot products on registers, in every thread; operations (a multiply and an add are two) of one step in one thread.
  double (*int8_rate)(long steps);
  double (*bf16_rate)(long steps);
  long int8_ops_per_step, bf16_ops_per_step;
};

const Ops& scalar_ops();
#if MOTET_X86
const Ops& avx2_ops();
const Ops& avx512_ops();
#endif
#if MOTET_AMX
const Ops& amx_ops();
#endif
#if MOTET_NEON
const Ops& neon_ops();
#endif

// The table in use: the best the CPU has, or the one named by MOTET_ISA / set_isa. Throws std::runtime_error with a
// sentence that lists what this CPU can run.
const Ops& ops();
void set_isa(const char* name);
int available_isas(const char** names, int max);

}  // namespace motet
