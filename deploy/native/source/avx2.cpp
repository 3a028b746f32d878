// AVX2: pairs of shorts by vpmaddwd, fours of bytes by vpmaddubsw where 16 bits hold their sums, bits by popcnt.
#include "kernels.h"
#include <immintrin.h>

namespace {

struct Lanes {
    static constexpr int WIDTH = 8;
    using Vector = __m256i;
    static Vector zero() { return _mm256_setzero_si256(); }
    static Vector repeat(const uint8_t *at) {
        int32_t four;
        std::memcpy(&four, at, 4);
        return _mm256_set1_epi32(four);
    }
    static Vector load(const void *at) { return _mm256_loadu_si256(static_cast<const __m256i *>(at)); }
    static Vector pairs(Vector total, Vector x, const int16_t *w) {
        return _mm256_add_epi32(total, _mm256_madd_epi16(x, load(w)));
    }
    static Vector fours(Vector total, Vector x, const int8_t *w) {
        total = _mm256_add_epi16(total, _mm256_maddubs_epi16(x, load(w)));
        asm volatile("" : "+x"(total));  // one product after the other: all at once do not fit the registers
        return total;
    }
    static void widen(int32_t *sums, Vector part) {
        store(sums, _mm256_add_epi32(load(sums), _mm256_madd_epi16(part, _mm256_set1_epi16(1))));
    }
    static void store(int32_t *to, Vector total) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), total); }
};

struct Bits {
    static int64_t count(uint64_t x) { return _mm_popcnt_u64(x); }
};

}  // namespace

extern const Kernels avx2_kernels;
const Kernels avx2_kernels = kernels<Lanes, Bits>("AVX2");
