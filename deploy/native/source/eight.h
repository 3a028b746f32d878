// Eight channels in a vector, for AVX2 and later.
#pragma once
#include "codes.h"
#include <immintrin.h>

namespace {  // each instruction set has its own

struct Eight {
    static constexpr int WIDTH = 8, PLACES = 4, WIDE_PLACES = 1, DEPTHWISE_LANES = 0;
    using Vector = __m256i;
    static Vector zero() { return _mm256_setzero_si256(); }
    static Vector repeat(const uint8_t *at) { return all(four_bytes(at)); }
    static Vector load(const void *at) { return _mm256_loadu_si256(static_cast<const __m256i *>(at)); }
    static void store(int32_t *to, Vector total) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), total); }
    static constexpr bool CODES = true;
    using Numbers = __m256;
    static Vector all(int32_t x) { return _mm256_set1_epi32(x); }
    static Numbers all(float x) { return _mm256_set1_ps(x); }
    static Numbers load_numbers(const float *at) { return _mm256_loadu_ps(at); }
    static Vector plus(Vector x, Vector y) { return _mm256_add_epi32(x, y); }
    static Vector product(Vector x, Vector y) { return _mm256_mullo_epi32(x, y); }
    static Numbers plus(Numbers x, Numbers y) { return _mm256_add_ps(x, y); }
    static Numbers times(Numbers x, Numbers y) { return _mm256_mul_ps(x, y); }
    static Numbers between(Numbers x, Numbers low, Numbers high) { return _mm256_min_ps(_mm256_max_ps(x, low), high); }
    static Numbers numbers(Vector x) { return _mm256_cvtepi32_ps(x); }
    static Vector nearest(Numbers x) { return _mm256_cvtps_epi32(x); }
    static void store_bytes(uint8_t *to, Vector codes) {
        const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i *>(to), _mm_packus_epi16(shorts, shorts));
    }
    static void store_first_bytes(uint8_t *to, Vector codes, int count) {
        uint8_t found[WIDTH];
        store_bytes(found, codes);
        for (int i = 0; i < count; i++) to[i] = found[i];
    }
    static void store_numbers(float *to, Numbers x) { _mm256_storeu_ps(to, x); }
    static void store_first_numbers(float *to, Numbers x, int count) {
        float found[WIDTH];
        store_numbers(found, x);
        for (int i = 0; i < count; i++) to[i] = found[i];
    }
    template <int TEST> static unsigned compared(const float *x, float edge) {
        return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x), _mm256_set1_ps(edge), TEST)));
    }
    static unsigned not_negative(const float *x) { return compared<_CMP_GE_OQ>(x, 0); }
    static unsigned above(const float *x, float edge) { return compared<_CMP_GT_OQ>(x, edge); }
    static unsigned below(const float *x, float edge) { return compared<_CMP_LT_OQ>(x, edge); }
    static unsigned at_least(const int32_t *sums, const int32_t *bias, const int32_t *bounds) {
        const __m256i below = _mm256_cmpgt_epi32(load(bounds), _mm256_add_epi32(load(sums), load(bias)));
        return ~unsigned(_mm256_movemask_ps(_mm256_castsi256_ps(below))) & 255;
    }
};

}  // namespace
