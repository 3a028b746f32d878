// Bit counts without an instruction for them: for AVX2 and later.
#pragma once
#include "codes.h"
#include <immintrin.h>

namespace {  // each instruction set has its own

// Bit counts of sixteen outputs, eight in each of two vectors. Nibbles are looked up; bytes hold the counts of at most 31 words,
// which are then added in 32 bits.
struct Counts {
    static constexpr int PLACES = 1, WIDTH = 16, MOST_WORDS = 31;
    __m256i bytes[2], wide[2];
    int words = 0;
    Counts() { bytes[0] = bytes[1] = wide[0] = wide[1] = _mm256_setzero_si256(); }
    static __m256i load(const uint32_t *at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(at)); }
    static __m256i all(uint32_t x) { return _mm256_set1_epi32(int32_t(x)); }
    ALWAYS static __m256i bits(__m256i x) {
        const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
        const __m256i low = _mm256_set1_epi8(15);
        return _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(x, low)),
                               _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), low)));
    }
    ALWAYS static __m256i bits_of_three(__m256i a, __m256i ab, __m256i abc) {
        const __m256i most = _mm256_xor_si256(a, _mm256_andnot_si256(_mm256_xor_si256(a, abc), ab));
        const __m256i count = bits(most);
        return _mm256_add_epi8(bits(abc), _mm256_add_epi8(count, count));
    }
    ALWAYS static __m256i three_at(const uint32_t *x, const uint32_t *w, int apart) {
        return bits_of_three(_mm256_xor_si256(all(x[0]), load(w)), _mm256_xor_si256(all(x[1]), load(w + apart)),
                             _mm256_xor_si256(all(x[2]), load(w + 2 * apart)));
    }
    ALWAYS void add_three(const uint32_t *x, const uint32_t *w, int apart) {
        bytes[0] = _mm256_add_epi8(bytes[0], three_at(x, w, apart));
        bytes[1] = _mm256_add_epi8(bytes[1], three_at(x, w + 8, apart));
        if ((words += 3) > MOST_WORDS - 3) flush();
    }
    ALWAYS void add_both(__m256i one, __m256i other) {
        bytes[0] = _mm256_add_epi8(bytes[0], bits(one));
        bytes[1] = _mm256_add_epi8(bytes[1], bits(other));
        if (++words > MOST_WORDS - 3) flush();  // leaves room for a three
    }
    ALWAYS void flush() {
        for (int i = 0; i < 2; i++) {
            const __m256i pairs = _mm256_maddubs_epi16(bytes[i], _mm256_set1_epi8(1));
            wide[i] = _mm256_add_epi32(wide[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            bytes[i] = _mm256_setzero_si256();
        }
        words = 0;
    }
    ALWAYS void add_unequal(uint32_t x, const uint32_t *w) {
        add_both(_mm256_xor_si256(all(x), load(w)), _mm256_xor_si256(all(x), load(w + 8)));
    }
    ALWAYS void add_unequal_in(uint32_t x, const uint32_t *w, uint32_t mask) {
        add_both(_mm256_and_si256(_mm256_xor_si256(all(x), load(w)), all(mask)),
                 _mm256_and_si256(_mm256_xor_si256(all(x), load(w + 8)), all(mask)));
    }
    ALWAYS void add_unequal_of(uint32_t x, const uint32_t *w, const uint32_t *counting) {
        add_both(_mm256_and_si256(_mm256_xor_si256(all(x), load(w)), load(counting)),
                 _mm256_and_si256(_mm256_xor_si256(all(x), load(w + 8)), load(counting + 8)));
    }
    ALWAYS void add_unequal_both(uint32_t x, const uint32_t *w, const uint32_t *counting, uint32_t mask) {
        const __m256i one = _mm256_and_si256(_mm256_xor_si256(all(x), load(w)), load(counting));
        const __m256i other = _mm256_and_si256(_mm256_xor_si256(all(x), load(w + 8)), load(counting + 8));
        add_both(_mm256_and_si256(one, all(mask)), _mm256_and_si256(other, all(mask)));
    }
    ALWAYS void add(const uint32_t *counting, uint32_t mask) {
        add_both(_mm256_and_si256(load(counting), all(mask)), _mm256_and_si256(load(counting + 8), all(mask)));
    }
    ALWAYS unsigned at_most(const int32_t *limits) {
        flush();
        unsigned more = 0;
        for (int i = 0; i < 2; i++) {
            const __m256i limit = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(limits + 8 * i));
            more |= unsigned(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(wide[i], limit)))) << (8 * i);
        }
        return ~more & 65535;
    }
    ALWAYS void total(int32_t *to) {
        flush();
        for (int i = 0; i < 2; i++) _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + 8 * i), wide[i]);
    }
};

}  // namespace
