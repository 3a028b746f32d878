// Bit counts by VPOPCNTDQ.
#pragma once
#include "codes.h"
#include <immintrin.h>

namespace {  // each instruction set has its own

// Bit counts of 32 outputs, by one instruction a vector. Ternary logic 0x28 is (a ^ b) & c.
struct Counts {
    static constexpr int PLACES = 4, WIDTH = 32, PARTS = 4;
    __m512i found[PARTS];
    ALWAYS Counts() {
        for (int i = 0; i < PARTS; i++) found[i] = _mm512_setzero_si512();
    }
    static __m512i load(const void *at) { return _mm512_loadu_si512(at); }
    static __m512i all(uint64_t x) { return _mm512_set1_epi64(int64_t(x)); }
    static __m512i differing(__m512i x, __m512i w, __m512i in) { return _mm512_ternarylogic_epi64(x, w, in, 0x28); }
    ALWAYS void add_bits(int part, __m512i bits) { found[part] = _mm512_add_epi64(found[part], _mm512_popcnt_epi64(bits)); }
    ALWAYS void add_unequal(uint64_t x, const uint64_t *w) {
        for (int i = 0; i < PARTS; i++) add_bits(i, _mm512_xor_si512(all(x), load(w + 8 * i)));
    }
    ALWAYS void add_unequal_in(uint64_t x, const uint64_t *w, uint64_t mask) {
        for (int i = 0; i < PARTS; i++) add_bits(i, differing(all(x), load(w + 8 * i), all(mask)));
    }
    ALWAYS void add_unequal_of(uint64_t x, const uint64_t *w, const uint64_t *counting) {
        for (int i = 0; i < PARTS; i++) add_bits(i, differing(all(x), load(w + 8 * i), load(counting + 8 * i)));
    }
    ALWAYS void add_unequal_both(uint64_t x, const uint64_t *w, const uint64_t *counting, uint64_t mask) {
        for (int i = 0; i < PARTS; i++)
            add_bits(i, differing(all(x), load(w + 8 * i), _mm512_and_si512(load(counting + 8 * i), all(mask))));
    }
    ALWAYS void add(const uint64_t *counting, uint64_t mask) {
        for (int i = 0; i < PARTS; i++) add_bits(i, _mm512_and_si512(load(counting + 8 * i), all(mask)));
    }
    ALWAYS uint64_t at_most(const int64_t *limits) const {
        __mmask16 few[PARTS];
        for (int i = 0; i < PARTS; i++) few[i] = _mm512_cmple_epi64_mask(found[i], load(limits + 8 * i));
        return _cvtmask32_u32(_mm512_kunpackw(_mm512_kunpackb(few[3], few[2]), _mm512_kunpackb(few[1], few[0])));
    }
    ALWAYS void total(int32_t *to) const {
        for (int i = 0; i < PARTS; i++)
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + 8 * i), _mm512_cvtepi64_epi32(found[i]));
    }
};

}  // namespace
