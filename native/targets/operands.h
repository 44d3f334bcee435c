// What the matrix microkernels of every target take. Included once by each, inside its namespace.
#pragma once
#include "ops.h"

namespace MOTET_NS {

constexpr int kOut = 32;  // floats between the results of two tokens: two tiles share a row

struct Token {  // one row of Acts
  const int8_t* q;
  const float* scale;
  const int32_t *sum, *pair;
  const float* x;
};

// For many tokens (ops/packed.h):
struct Codes {  // blocks of one tile as the target multiplies them
  const uint8_t* codes;  // [block][8][16 rows][4]
  const float* scales;   // [block][16]
};
struct Group {  // the same blocks of kGroup gathered tokens
  int8_t* q;       // [block][kGroup][32]
  float* scale;    // [block][kGroup]
  int32_t* start;  // [block][kGroup]: where a dot product starts, to undo the offset of unsigned codes
};
struct Ahead {  // weights to ask for meanwhile: `lines` cache lines at every block
  const uint8_t* at;
  int lines;
};

}  // namespace MOTET_NS
