// The loops for AVX2.
#include "loops.h"

TABLE(avx2_loops, [] { return bool(__builtin_cpu_supports("avx2")); })
