// AVX2: pairs of shorts by vpmaddwd, fours of bytes by vpmaddubsw if 16 bits hold their sums, bit counts by nibble look-up.
#include "eight.h"
#include "kernels.h"
#include "nibbles.h"

namespace {

struct Lanes : Eight {
    static constexpr bool WHOLE = false;
    static Vector pairs(Vector total, Vector x, const int16_t *w) {
        return _mm256_add_epi32(total, _mm256_madd_epi16(x, load(w)));
    }
    static Vector fours(Vector total, Vector x, const int8_t *w) {
        total = _mm256_add_epi16(total, _mm256_maddubs_epi16(x, load(w)));
        asm volatile("" : "+x"(total));  // one product at a time: all at once do not fit the registers
        return total;
    }
    static void widen(int32_t *sums, Vector part) {
        store(sums, _mm256_add_epi32(load(sums), _mm256_madd_epi16(part, _mm256_set1_epi16(1))));
    }
};

}  // namespace

extern const Kernels avx2_kernels;
const Kernels avx2_kernels = kernels<Lanes, Counts>("AVX2");
