// Sixteen channels in a vector, fours of bytes added in 32 bits: for AVX512 with VNNI.
#pragma once
#include "codes.h"
#include <immintrin.h>

namespace {  // each instruction set has its own

struct Sixteen {
    static constexpr int WIDTH = 16, PLACES = 8, WIDE_PLACES = 4, DEPTHWISE_LANES = 64;
    static constexpr bool WHOLE = true;
    using Vector = __m512i;
    static Vector zero() { return _mm512_setzero_si512(); }
    static Vector repeat(const uint8_t *at) { return all(four_bytes(at)); }
    static Vector load(const void *at) { return _mm512_loadu_si512(at); }
    // One product at a time: compilers try all at once, which do not fit the registers.
    static Vector in_order(Vector total) {
        asm volatile("" : "+v"(total));
        return total;
    }
    static Vector pairs(Vector total, Vector x, const int16_t *w) { return in_order(_mm512_dpwssd_epi32(total, x, load(w))); }
    static Vector fours(Vector total, Vector x, const int8_t *w) { return in_order(_mm512_dpbusd_epi32(total, x, load(w))); }
    static void store(int32_t *to, Vector total) { _mm512_storeu_si512(to, total); }
    static constexpr bool CODES = true;
    using Numbers = __m512;
    static Vector all(int32_t x) { return _mm512_set1_epi32(x); }
    static Numbers all(float x) { return _mm512_set1_ps(x); }
    static Numbers load_numbers(const float *at) { return _mm512_loadu_ps(at); }
    static Vector plus(Vector x, Vector y) { return _mm512_add_epi32(x, y); }
    static Vector product(Vector x, Vector y) { return _mm512_mullo_epi32(x, y); }
    static Numbers plus(Numbers x, Numbers y) { return _mm512_add_ps(x, y); }
    static Numbers times(Numbers x, Numbers y) { return _mm512_mul_ps(x, y); }
    static Numbers between(Numbers x, Numbers low, Numbers high) { return _mm512_min_ps(_mm512_max_ps(x, low), high); }
    static Numbers numbers(Vector x) { return _mm512_cvtepi32_ps(x); }
    static Vector nearest(Numbers x) { return _mm512_cvtps_epi32(x); }
    static void store_bytes(uint8_t *to, Vector codes) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm512_cvtepi32_epi8(codes));
    }
    static void store_first_bytes(uint8_t *to, Vector codes, int count) {
        const __m128i bytes = _mm512_cvtepi32_epi8(codes);
        if (count == 8) _mm_storel_epi64(reinterpret_cast<__m128i *>(to), bytes);
        else _mm_mask_storeu_epi8(to, first(count), bytes);
    }
    static void store_numbers(float *to, Numbers x) { _mm512_storeu_ps(to, x); }
    // Masked stores are slow on some processors; most counts of channels are multiples of 8.
    static void store_first_numbers(float *to, Numbers x, int count) {
        if (count != 8) return _mm512_mask_storeu_ps(to, first(count), x);
        _mm256_storeu_ps(to, _mm512_castps512_ps256(x));
    }
    static __mmask16 first(int count) { return __mmask16((1u << count) - 1); }
    template <int TEST> static unsigned compared(const float *x, float edge) {
        return _mm512_cmp_ps_mask(_mm512_loadu_ps(x), _mm512_set1_ps(edge), TEST);
    }
    static unsigned not_negative(const float *x) { return compared<_CMP_GE_OQ>(x, 0); }
    static unsigned above(const float *x, float edge) { return compared<_CMP_GT_OQ>(x, edge); }
    static unsigned below(const float *x, float edge) { return compared<_CMP_LT_OQ>(x, edge); }
    // Sums of 64 channels: vector v holds channels 16 L + 4 v + (0 to 3) in its lane L, the order that unpacking gives.
    struct DepthwiseSums {
        Vector part[4];
        ALWAYS DepthwiseSums() {
            for (int v = 0; v < 4; v++) part[v] = zero();
        }
        template <int PLANES> ALWAYS void add(const uint8_t *from, const int32_t *offsets, const int8_t *w) {
            const Vector a = load(from + offsets[0]), b = load(from + offsets[1]);
            const Vector c = load(from + offsets[2]), d = load(from + offsets[3]);
            const Vector low = _mm512_unpacklo_epi8(a, b), high = _mm512_unpackhi_epi8(a, b);
            const Vector low2 = _mm512_unpacklo_epi8(c, d), high2 = _mm512_unpackhi_epi8(c, d);
            const Vector fours[] = {_mm512_unpacklo_epi16(low, low2), _mm512_unpackhi_epi16(low, low2),
                                    _mm512_unpacklo_epi16(high, high2), _mm512_unpackhi_epi16(high, high2)};
            for (int plane = 0; plane < PLANES; plane++, w += 256)
                for (int v = 0; v < 4; v++) part[v] = _mm512_dpbusd_epi32(part[v], fours[v], load(w + 64 * v));
        }
        // In the order of channels.
        void store(int32_t *to) const {
            Numbers natural[4];
            in_natural_order(_mm512_castsi512_ps(part[0]), _mm512_castsi512_ps(part[1]), _mm512_castsi512_ps(part[2]),
                             _mm512_castsi512_ps(part[3]), natural);
            for (int n = 0; n < 4; n++) Sixteen::store(to + 16 * n, _mm512_castps_si512(natural[n]));
        }
    };

    // Four vectors in the order of DepthwiseSums: transposes their 4 x 4 lanes of four channels.
    ALWAYS static void in_natural_order(Numbers a, Numbers b, Numbers c, Numbers d, Numbers *to) {
        const Numbers ab = _mm512_shuffle_f32x4(a, b, 0x44), cd = _mm512_shuffle_f32x4(c, d, 0x44);
        const Numbers ab2 = _mm512_shuffle_f32x4(a, b, 0xee), cd2 = _mm512_shuffle_f32x4(c, d, 0xee);
        to[0] = _mm512_shuffle_f32x4(ab, cd, 0x88);
        to[1] = _mm512_shuffle_f32x4(ab, cd, 0xdd);
        to[2] = _mm512_shuffle_f32x4(ab2, cd2, 0x88);
        to[3] = _mm512_shuffle_f32x4(ab2, cd2, 0xdd);
    }

    // Turns sums of 64 lanes into bytes or numbers. Bias, scale and shift are in the order of DepthwiseSums, all of them present.
    class DepthwiseFinish {
        using Each = Coder<Sixteen, true, true>;
        const Each each[4];

        static Each of(const Step &step, int at) { return {step, step.bias + at, step.scale + at, step.shift + at}; }
        static __mmask64 mask_of(int count) { return ~__mmask64(0) >> (64 - count); }

      public:
        DepthwiseFinish(const Step &step, int part)
            : each{of(step, 64 * part), of(step, 64 * part + 16), of(step, 64 * part + 32), of(step, 64 * part + 48)} {}
        ALWAYS void store_codes(const DepthwiseSums &sums, uint8_t *to, int count) const {
            const Vector low = _mm512_packs_epi32(each[0](sums.part[0]), each[1](sums.part[1]));
            const Vector high = _mm512_packs_epi32(each[2](sums.part[2]), each[3](sums.part[3]));
            _mm512_mask_storeu_epi8(to, mask_of(count), _mm512_packus_epi16(low, high));
        }
        ALWAYS void store_numbers(const DepthwiseSums &sums, float *to, int count) const {
            Numbers found[4];
            in_natural_order(each[0].number(sums.part[0]), each[1].number(sums.part[1]), each[2].number(sums.part[2]),
                             each[3].number(sums.part[3]), found);
            for (int n = 0; n < 4; n++) _mm512_mask_storeu_ps(to + 16 * n, __mmask16(mask_of(count) >> 16 * n), found[n]);
        }
    };
    static unsigned reached(Vector total, const int32_t *bounds) { return _mm512_cmpge_epi32_mask(total, load(bounds)); }
    static unsigned at_least(const int32_t *sums, const int32_t *bias, const int32_t *bounds) {
        return _mm512_cmpge_epi32_mask(_mm512_add_epi32(load(sums), load(bias)), load(bounds));
    }
};

}  // namespace
