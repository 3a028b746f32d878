// Sixteen channels in a vector, fours of bytes added in 32 bits: for AVX512 with VNNI.
#pragma once
#include "codes.h"
#include <immintrin.h>

namespace {  // each instruction set has its own

struct Sixteen {
    static constexpr int WIDTH = 16, PLACES = 8, WIDE_PLACES = 4, APART = 64;
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
    static Numbers plus(Numbers x, Numbers y) { return _mm512_add_ps(x, y); }
    static Numbers times(Numbers x, Numbers y) { return _mm512_mul_ps(x, y); }
    static Numbers between(Numbers x, Numbers low, Numbers high) { return _mm512_min_ps(_mm512_max_ps(x, low), high); }
    static Numbers numbers(Vector x) { return _mm512_cvtepi32_ps(x); }
    static Vector nearest(Numbers x) { return _mm512_cvtps_epi32(x); }
    static void store_bytes(uint8_t *to, Vector codes) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm512_cvtepi32_epi8(codes));
    }
    template <int TEST> static unsigned compared(const float *x, float edge) {
        return _mm512_cmp_ps_mask(_mm512_loadu_ps(x), _mm512_set1_ps(edge), TEST);
    }
    static unsigned not_negative(const float *x) { return compared<_CMP_GE_OQ>(x, 0); }
    static unsigned above(const float *x, float edge) { return compared<_CMP_GT_OQ>(x, edge); }
    static unsigned below(const float *x, float edge) { return compared<_CMP_LT_OQ>(x, edge); }
    // Sums of 64 channels: vector v holds channels 16 L + 4 v + (0 to 3) in its lane L, the order that unpacking gives.
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

    // Turns sums of 64 channels into bytes, if the layer gives codes. A missing scale is 1 here, a missing shift or bias 0.
    class ApartCoder {
        using Each = Coder<Sixteen, true, true>;
        const __mmask64 mask;
        const Each each[4];

        // The numbers of `count` channels in the order of sums, `rest` for channels beyond them.
        template <class T> struct Ordered {
            alignas(64) T held[64];
            Ordered(const T *from, int first, int count, T rest) {
                for (int c = 0; c < 64; c++) held[c / 4 % 4 * 16 + c / 16 * 4 + c % 4] = from && c < count ? from[first + c] : rest;
            }
            const T *vector(int v) const { return held + 16 * v; }
        };
        ApartCoder(const Step &step, int count, const Ordered<int32_t> &bias, const Ordered<float> &scale, const Ordered<float> &shift)
            : mask(count < 64 ? (__mmask64(1) << count) - 1 : ~__mmask64(0)),
              each{{step, bias.vector(0), scale.vector(0), shift.vector(0)}, {step, bias.vector(1), scale.vector(1), shift.vector(1)},
                   {step, bias.vector(2), scale.vector(2), shift.vector(2)}, {step, bias.vector(3), scale.vector(3), shift.vector(3)}},
              codes(step.result.kind == BYTE && step.coded && !step.signs) {}

      public:
        const bool codes;
        ApartCoder(const Step &step, int first, int count)
            : ApartCoder(step, count, {step.bias, first, count, 0}, {step.scale, first, count, 1.0f}, {step.shift, first, count, 0.0f}) {}
        ALWAYS void store(const Apart &sums, uint8_t *to) const {
            const Vector low = _mm512_packs_epi32(each[0](sums.part[0]), each[1](sums.part[1]));
            const Vector high = _mm512_packs_epi32(each[2](sums.part[2]), each[3](sums.part[3]));
            _mm512_mask_storeu_epi8(to, mask, _mm512_packus_epi16(low, high));
        }
    };
    static unsigned at_least(const int32_t *sums, const int32_t *bias, const int32_t *bounds) {
        return _mm512_cmpge_epi32_mask(_mm512_add_epi32(load(sums), load(bias)), load(bounds));
    }
};

}  // namespace
