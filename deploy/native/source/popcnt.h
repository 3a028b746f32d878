// Bit counts by VPOPCNTDQ, doubled by VNNI.
#pragma once
#include "codes.h"
#include <immintrin.h>

namespace {  // each instruction set has its own

// Bit counts of 32 outputs, by one instruction a vector. Ternary logic 0x28 is (a ^ b) & c; MAJORITY is a ? ~b : c.
struct Counts {
    static constexpr int MAJORITY = 0x3A;
    static constexpr int PLACES = 8, WIDTH = 32;
    __m512i low = _mm512_setzero_si512(), high = _mm512_setzero_si512();
    static __m512i load(const void *at) { return _mm512_loadu_si512(at); }
    static __m512i all(uint32_t x) { return _mm512_set1_epi32(int32_t(x)); }
    static __m512i differing(__m512i x, __m512i w, __m512i in) { return _mm512_ternarylogic_epi32(x, w, in, 0x28); }
    // One sum at a time: compilers try all at once, which do not fit the registers.
    static __m512i added(__m512i total, __m512i bits) {
        total = _mm512_add_epi32(total, _mm512_popcnt_epi32(bits));
        asm volatile("" : "+v"(total));
        return total;
    }
    ALWAYS void add_bits(__m512i of_low, __m512i of_high) {
        low = added(low, of_low);
        high = added(high, of_high);
    }
    ALWAYS void add_unequal(uint32_t x, const uint32_t *w) {
        add_bits(_mm512_xor_si512(all(x), load(w)), _mm512_xor_si512(all(x), load(w + 16)));
    }
    // The forms of three differences are as in threes.h. A count of 32 bits fits a byte, so VNNI's product with bytes of 2 doubles it.
    static __m512i added_three(__m512i total, __m512i a, __m512i ab, __m512i abc) {
        const __m512i most = _mm512_ternarylogic_epi32(ab, abc, a, MAJORITY);
        total = _mm512_add_epi32(total, _mm512_popcnt_epi32(abc));
        total = _mm512_dpbusd_epi32(total, _mm512_popcnt_epi32(most), _mm512_set1_epi8(2));
        asm volatile("" : "+v"(total));
        return total;
    }
    ALWAYS void add_three(const uint32_t *x, const uint32_t *w, int apart) {
        const __m512i a = all(x[0]), ab = all(x[1]), abc = all(x[2]);
        const uint32_t *const w2 = w + apart, *const w3 = w2 + apart;
        low = added_three(low, _mm512_xor_si512(a, load(w)), _mm512_xor_si512(ab, load(w2)), _mm512_xor_si512(abc, load(w3)));
        high = added_three(high, _mm512_xor_si512(a, load(w + 16)), _mm512_xor_si512(ab, load(w2 + 16)), _mm512_xor_si512(abc, load(w3 + 16)));
    }
    ALWAYS void add_unequal_in(uint32_t x, const uint32_t *w, uint32_t mask) {
        add_bits(differing(all(x), load(w), all(mask)), differing(all(x), load(w + 16), all(mask)));
    }
    ALWAYS void add_unequal_of(uint32_t x, const uint32_t *w, const uint32_t *counting) {
        add_bits(differing(all(x), load(w), load(counting)), differing(all(x), load(w + 16), load(counting + 16)));
    }
    ALWAYS void add_unequal_both(uint32_t x, const uint32_t *w, const uint32_t *counting, uint32_t mask) {
        add_bits(differing(all(x), load(w), _mm512_and_si512(load(counting), all(mask))),
                 differing(all(x), load(w + 16), _mm512_and_si512(load(counting + 16), all(mask))));
    }
    ALWAYS void add(const uint32_t *counting, uint32_t mask) {
        add_bits(_mm512_and_si512(load(counting), all(mask)), _mm512_and_si512(load(counting + 16), all(mask)));
    }
    ALWAYS uint32_t at_most(const int32_t *limits) const {
        return _cvtmask32_u32(_mm512_kunpackw(_mm512_cmple_epi32_mask(high, load(limits + 16)), _mm512_cmple_epi32_mask(low, load(limits))));
    }
    ALWAYS void total(int32_t *to) const {
        _mm512_storeu_si512(to, low);
        _mm512_storeu_si512(to + 16, high);
    }
};

}  // namespace
