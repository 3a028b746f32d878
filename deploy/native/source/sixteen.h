// Sixteen channels a vector, fours of bytes added in 32 bits: for AVX512 with VNNI.
#pragma once
#include "codes.h"
#include <immintrin.h>

namespace {  // each instruction set has its own

struct Lanes {
    static constexpr int WIDTH = 16, PLACES = 8, WIDE_PLACES = 4;
    static constexpr bool WHOLE = true;
    using Vector = __m512i;
    static Vector zero() { return _mm512_setzero_si512(); }
    static Vector repeat(const uint8_t *at) {
        int32_t four;
        std::memcpy(&four, at, 4);
        return _mm512_set1_epi32(four);
    }
    static Vector load(const void *at) { return _mm512_loadu_si512(at); }
    // One product after the other: all at once do not fit the registers, and compilers try.
    static Vector in_order(Vector total) {
        asm volatile("" : "+v"(total));
        return total;
    }
    static Vector pairs(Vector total, Vector x, const int16_t *w) { return in_order(_mm512_dpwssd_epi32(total, x, load(w))); }
    static Vector fours(Vector total, Vector x, const int8_t *w) { return in_order(_mm512_dpbusd_epi32(total, x, load(w))); }
    static void store(int32_t *to, Vector total) { _mm512_storeu_si512(to, total); }
    static constexpr bool CODES = true;
    // Sums of one vector of channels to bytes of codes. Rounding is half to even, as mc_run has set it.
    template <bool SCALED, bool SHIFTED> static auto coder(const Coding &coding, const Step &step, int first) {
        const Vector bias = load(step.bias + first), zero = _mm512_set1_epi32(step.result.zero);
        const __m512 scale = SCALED ? _mm512_loadu_ps(step.scale + first) : _mm512_setzero_ps();
        const __m512 shift = SHIFTED ? _mm512_loadu_ps(step.shift + first) : _mm512_setzero_ps();
        const __m512 inverse = _mm512_set1_ps(coding.inverse), low = _mm512_set1_ps(coding.low), high = _mm512_set1_ps(coding.high);
        return [=](const int32_t *sums, uint8_t *to) {
            __m512 y = _mm512_cvtepi32_ps(_mm512_add_epi32(load(sums), bias));
            if (SCALED) y = _mm512_mul_ps(y, scale);
            if (SHIFTED) y = _mm512_add_ps(y, shift);
            y = _mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(y, inverse), low), high);
            const Vector codes = _mm512_add_epi32(_mm512_cvtps_epi32(y), zero);
            _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm512_cvtepi32_epi8(codes));
        };
    }
    template <int TEST> static unsigned compared(const float *x, float edge) {
        return _mm512_cmp_ps_mask(_mm512_loadu_ps(x), _mm512_set1_ps(edge), TEST);
    }
    static unsigned not_negative(const float *x) { return compared<_CMP_GE_OQ>(x, 0); }
    static unsigned above(const float *x, float edge) { return compared<_CMP_GT_OQ>(x, edge); }
    static unsigned below(const float *x, float edge) { return compared<_CMP_LT_OQ>(x, edge); }
    static unsigned at_least(const int32_t *sums, const int32_t *bias, const int32_t *bounds) {
        return _mm512_cmpge_epi32_mask(_mm512_add_epi32(load(sums), load(bias)), load(bounds));
    }
};

}  // namespace
