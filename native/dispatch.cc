// Chooses the instruction set once, at the first call.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#if MOTET_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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

// The tile registers must exist and Linux must grant them: it keeps 8 KB more for threads that use them, on request.
bool cpu_has_amx() {
#if MOTET_AMX
  constexpr unsigned amx_tile = 1u << 24, amx_int8 = 1u << 25;
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
  unsigned a, b, c, d;
  if (!cpu_has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (amx_tile | amx_int8)) != (amx_tile | amx_int8)) return false;
  static const bool granted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return granted;
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
#if MOTET_AMX
  if (!std::strcmp(name, "amx") && cpu_has_amx()) return &amx_ops();
#endif
#if MOTET_NEON
  if (!std::strcmp(name, "neon")) return &neon_ops();
#endif
  return nullptr;
}

const Ops* current = nullptr;

}  // namespace

int available_isas(const char** names, int max) {
  int n = 0;
  for (const char* name : {"scalar", "neon", "avx2", "avx512", "amx"})
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
#if MOTET_NEON
      set_isa("neon");
#elif MOTET_EMULATE_AVX512
      set_isa(cpu_has_avx2() ? "avx2" : "scalar");
#else
      set_isa(cpu_has_amx() ? "amx" : cpu_has_avx512() ? "avx512" : cpu_has_avx2() ? "avx2" : "scalar");
#endif
    }
  }
  return *current;
}

}  // namespace motet
