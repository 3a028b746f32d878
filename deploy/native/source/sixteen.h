// Sixteen channels a vector, fours of bytes added in 32 bits: for AVX512 with VNNI.
#pragma once
#include "codes.h"
#include <immintrin.h>

namespace {  // each instruction set has its own

struct Sixteen {
    static constexpr int WIDTH = 16, PLACES = 8, WIDE_PLACES = 4, APART = 64;
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
    // Sums of 64 channels: vector v holds channels 16 L + 4 v + (0 to 3) in its lane L, as unpacking leaves them.
    struct Apart {
        Vector part[4];
        ALWAYS Apart() {
            for (int v = 0; v < 4; v++) part[v] = zero();
        }
        ALWAYS void add(const uint8_t *from, const int32_t *offsets, const int8_t *w) {
            const Vector a = load(from + offsets[0]), b = load(from + offsets[1]);
            const Vector c = load(from + offsets[2]), d = load(from + offsets[3]);
            const Vector low = _mm512_unpacklo_epi8(a, b), high = _mm512_unpackhi_epi8(a, b);
            const Vector low2 = _mm512_unpacklo_epi8(c, d), high2 = _mm512_unpackhi_epi8(c, d);
            part[0] = _mm512_dpbusd_epi32(part[0], _mm512_unpacklo_epi16(low, low2), load(w));
            part[1] = _mm512_dpbusd_epi32(part[1], _mm512_unpackhi_epi16(low, low2), load(w + 64));
            part[2] = _mm512_dpbusd_epi32(part[2], _mm512_unpacklo_epi16(high, high2), load(w + 128));
            part[3] = _mm512_dpbusd_epi32(part[3], _mm512_unpackhi_epi16(high, high2), load(w + 192));
        }
        // In the order of channels.
        void store(int32_t *to) const {
            for (int v = 0; v < 4; v++) {
                alignas(64) int32_t found[16];
                Sixteen::store(found, part[v]);
                for (int i = 0; i < 16; i++) to[i / 4 * 16 + 4 * v + i % 4] = found[i];
            }
        }
    };

    // Codes of such sums to bytes, where that is all that a layer does.
    struct Coder {
        const bool codes, scaled, shifted;
        const __mmask64 mask;
        Vector bias[4], code_of_0;
        __m512 scale[4], shift[4], inverse, low, high;

        // The numbers of `count` channels, in the order of sums.
        static void ordered(const void *from, int count, Vector *to) {
            alignas(64) int32_t held[64] = {0};
            if (from) std::memcpy(held, from, sizeof(int32_t) * count);
            for (int v = 0; v < 4; v++)
                to[v] = _mm512_i32gather_epi32(
                    _mm512_add_epi32(_mm512_set_epi32(51, 50, 49, 48, 35, 34, 33, 32, 19, 18, 17, 16, 3, 2, 1, 0), _mm512_set1_epi32(4 * v)),
                    held, 4);
        }
        Coder(const Step &step, int first, int count)
            : codes(step.result.kind == BYTE && step.coded && !step.signs), scaled(step.scale), shifted(step.shift),
              mask(count < 64 ? (__mmask64(1) << count) - 1 : ~__mmask64(0)) {
            const Coding coding(step);
            ordered(step.bias + first, count, bias);
            ordered(scaled ? step.scale + first : nullptr, count, reinterpret_cast<Vector *>(scale));
            ordered(shifted ? step.shift + first : nullptr, count, reinterpret_cast<Vector *>(shift));
            inverse = _mm512_set1_ps(coding.inverse);
            low = _mm512_set1_ps(coding.low);
            high = _mm512_set1_ps(coding.high);
            code_of_0 = _mm512_set1_epi32(step.result.zero);
        }
        ALWAYS void store(const Apart &sums, uint8_t *to) const {
            Vector found[4];
            for (int v = 0; v < 4; v++) {
                __m512 y = _mm512_cvtepi32_ps(_mm512_add_epi32(sums.part[v], bias[v]));
                if (scaled) y = _mm512_mul_ps(y, scale[v]);
                if (shifted) y = _mm512_add_ps(y, shift[v]);
                y = _mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(y, inverse), low), high);
                found[v] = _mm512_add_epi32(_mm512_cvtps_epi32(y), code_of_0);
            }
            const Vector bytes = _mm512_packus_epi16(_mm512_packs_epi32(found[0], found[1]), _mm512_packs_epi32(found[2], found[3]));
            _mm512_mask_storeu_epi8(to, mask, bytes);
        }
    };
    static unsigned at_least(const int32_t *sums, const int32_t *bias, const int32_t *bounds) {
        return _mm512_cmpge_epi32_mask(_mm512_add_epi32(load(sums), load(bias)), load(bounds));
    }
};

}  // namespace
