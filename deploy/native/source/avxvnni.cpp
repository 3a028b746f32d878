// AVX-VNNI: as AVX2, but one instruction adds fours of bytes in 32 bits.
#include "eight.h"
#include "kernels.h"
#include "nibbles.h"

namespace {

struct Lanes : Eight {
    static constexpr bool WHOLE = true;
    static Vector pairs(Vector total, Vector x, const int16_t *w) { return _mm256_dpwssd_avx_epi32(total, x, load(w)); }
    static Vector fours(Vector total, Vector x, const int8_t *w) { return _mm256_dpbusd_avx_epi32(total, x, load(w)); }
};

}  // namespace

extern const Kernels avxvnni_kernels;
const Kernels avxvnni_kernels = kernels<Lanes, Counts>("AVX-VNNI");
