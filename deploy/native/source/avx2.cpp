// AVX2: pairs of shorts by vpmaddwd, fours of bytes by vpmaddubsw where 16 bits hold their sums, bits by look-up of nibbles.
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

// Bits of four words each in two vectors: nibbles are looked up, bytes hold at most 31 words of them, then go on in 64 bits.
struct Counts {
    __m256i bytes[2], wide[2];
    int words = 0;
    Counts() { bytes[0] = bytes[1] = wide[0] = wide[1] = _mm256_setzero_si256(); }
    static __m256i load(const uint64_t *at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(at)); }
    static __m256i all(uint64_t x) { return _mm256_set1_epi64x(int64_t(x)); }
    ALWAYS static __m256i bits(__m256i x) {
        const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
        const __m256i low = _mm256_set1_epi8(15);
        return _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(x, low)),
                               _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), low)));
    }
    ALWAYS void add_both(__m256i one, __m256i other) {
        bytes[0] = _mm256_add_epi8(bytes[0], bits(one));
        bytes[1] = _mm256_add_epi8(bytes[1], bits(other));
        if (++words == 31) flush();
    }
    ALWAYS void flush() {
        for (int i = 0; i < 2; i++) {
            wide[i] = _mm256_add_epi64(wide[i], _mm256_sad_epu8(bytes[i], _mm256_setzero_si256()));
            bytes[i] = _mm256_setzero_si256();
        }
        words = 0;
    }
    ALWAYS void add_unequal(uint64_t x, const uint64_t *w) {
        add_both(_mm256_xor_si256(all(x), load(w)), _mm256_xor_si256(all(x), load(w + 4)));
    }
    ALWAYS void add_unequal_in(uint64_t x, const uint64_t *w, uint64_t mask) {
        add_both(_mm256_and_si256(_mm256_xor_si256(all(x), load(w)), all(mask)),
                 _mm256_and_si256(_mm256_xor_si256(all(x), load(w + 4)), all(mask)));
    }
    ALWAYS void add_unequal_of(uint64_t x, const uint64_t *w, const uint64_t *counting, uint64_t mask) {
        const __m256i one = _mm256_and_si256(_mm256_xor_si256(all(x), load(w)), load(counting));
        const __m256i other = _mm256_and_si256(_mm256_xor_si256(all(x), load(w + 4)), load(counting + 4));
        add_both(_mm256_and_si256(one, all(mask)), _mm256_and_si256(other, all(mask)));
    }
    ALWAYS void add(const uint64_t *counting, uint64_t mask) {
        add_both(_mm256_and_si256(load(counting), all(mask)), _mm256_and_si256(load(counting + 4), all(mask)));
    }
    ALWAYS void total(int64_t *to) {
        flush();
        for (int i = 0; i < 2; i++) _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + 4 * i), wide[i]);
    }
};

}  // namespace

extern const Kernels avx2_kernels;
const Kernels avx2_kernels = kernels<Lanes, Counts>("AVX2");
