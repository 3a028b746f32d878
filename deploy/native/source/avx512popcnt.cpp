// AVX512 with VNNI and VPOPCNTDQ: Ice Lake, Zen 4 and later.
#include "sixteen.h"
#include "kernels.h"
#include "popcnt.h"

extern const Kernels avx512popcnt_kernels;
const Kernels avx512popcnt_kernels = kernels<Sixteen, Counts>("AVX512 VNNI + VPOPCNT");
