// The loops for AVX2, with fused multiply-adds.
#include "loops.h"

TABLE(avx2_loops, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); })
