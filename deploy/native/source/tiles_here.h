// Whether this process may use AMX: the processor has it, the system saves its tiles and grants the process permission.
#pragma once
#if defined(WITH_AMX) && defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

// Call it only where AVX512 runs: there the processor has xgetbv.
inline bool tiles_here() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) || !(d >> 25 & 1)) return false;  // AMX-TILE, AMX-INT8
    if (!__get_cpuid_count(0x1d, 0, &a, &b, &c, &d) || a < 1) return false;  // a guest may see the unit without its palette
    unsigned low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low >> 17 & 3) != 3) return false;  // the system saves configuration and tiles
    constexpr long ASK = 0x1023, TILES = 18;
    return syscall(SYS_arch_prctl, ASK, TILES) == 0;
}

}  // namespace
#else
namespace {
inline bool tiles_here() { return false; }
}  // namespace
#endif
