// Chooses the instruction set once, at the first call.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "ops.h"

namespace motet {
namespace {

bool cpu_has_avx2() {
#if MOTET_X86
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool cpu_has_avx512() {
#if MOTET_EMULATE_AVX512
  return true;
#elif MOTET_X86
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

const Ops* find(const char* name) {
  if (!std::strcmp(name, "scalar")) return &scalar_ops();
#if MOTET_X86
  if (!std::strcmp(name, "avx2") && cpu_has_avx2()) return &avx2_ops();
  if (!std::strcmp(name, "avx512") && cpu_has_avx512()) return &avx512_ops();
#endif
  return nullptr;
}

const Ops* current = nullptr;

}  // namespace

int available_isas(const char** names, int max) {
  int n = 0;
  for (const char* name : {"scalar", "avx2", "avx512"})
    if (n < max && find(name)) names[n++] = name;
  return n;
}

void set_isa(const char* name) {
  const Ops* found = find(name);
  if (!found) {
    const char* names[8];
    std::string list;
    for (int i = 0, n = available_isas(names, 8); i < n; ++i) list += (i ? ", " : "") + std::string(names[i]);
    throw std::runtime_error("MOTET_ISA '" + std::string(name) + "' cannot run on this CPU; choose one of: " + list);
  }
  current = found;
}

const Ops& ops() {
  if (!current) {
    const char* forced = std::getenv("MOTET_ISA");
    if (forced && *forced) {
      set_isa(forced);
    } else {
#if MOTET_EMULATE_AVX512
      set_isa(cpu_has_avx2() ? "avx2" : "scalar");
#else
      set_isa(cpu_has_avx512() ? "avx512" : cpu_has_avx2() ? "avx2" : "scalar");
#endif
    }
  }
  return *current;
}

}  // namespace motet
