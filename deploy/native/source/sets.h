// The compiled instruction sets (by WITH_... macros), and whether they run here.
#pragma once
#include "step.h"
#include "tiles_here.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

extern const Kernels plain_kernels, avx2_kernels, avxvnni_kernels, avx512vnni_kernels, avx512popcnt_kernels, amx_kernels,
    amx_emulated_kernels;
bool amx_adds_right(), amx_emulated_adds_right();

namespace {

// The best one last; emulated ones for tests come early.
const Kernels *const all[] = {
    &plain_kernels,
#ifdef WITH_AMX_EMULATED
    &amx_emulated_kernels,
#endif
#ifdef WITH_AVX2
    &avx2_kernels,
#endif
#ifdef WITH_AVXVNNI
    &avxvnni_kernels,
#endif
#ifdef WITH_AVX512VNNI
    &avx512vnni_kernels,
#endif
#ifdef WITH_AVX512POPCNT
    &avx512popcnt_kernels,
#endif
#ifdef WITH_AMX
    &amx_kernels,
#endif
};

// The processor's features. __builtin_cpu_supports also checks that the operating system saves the registers.
struct Here {
    bool avx2 = false, avxvnni = false, wide = false, counting = false;
    Here() {
#if defined(__x86_64__)
        unsigned a = 0, b, c, d;
        avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
        avxvnni = avx2 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
        wide = avx2 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
        counting = wide && __builtin_cpu_supports("avx512vpopcntdq");
#endif
    }
};

// Whether the processor has the features that a file was compiled for. A matrix unit must also pass a test of its sums.
inline bool runs_here(const Kernels *kernels) {
    [[maybe_unused]] static const Here here;
    if (kernels == &plain_kernels) return true;
#ifdef WITH_AVX2
    if (kernels == &avx2_kernels) return here.avx2;
#endif
#ifdef WITH_AVXVNNI
    if (kernels == &avxvnni_kernels) return here.avxvnni;
#endif
#ifdef WITH_AVX512VNNI
    if (kernels == &avx512vnni_kernels) return here.wide;
#endif
#ifdef WITH_AVX512POPCNT
    if (kernels == &avx512popcnt_kernels) return here.counting;
#endif
#ifdef WITH_AMX_EMULATED
    static const bool emulated = here.counting && amx_emulated_adds_right();
    if (kernels == &amx_emulated_kernels) return emulated;
#endif
#ifdef WITH_AMX
    static const bool tiles = here.counting && tiles_here() && amx_adds_right();
    if (kernels == &amx_kernels) return tiles;
#endif
    return false;
}

}  // namespace
