// AVX512 with VNNI, bit counts by nibble look-up: the first processors with VNNI (Cascade Lake) cannot count bits in vectors.
#include "sixteen.h"
#include "kernels.h"
#include "nibbles.h"

namespace {

// A word of outputs as two groups of sixteen.
struct Twice {
    static constexpr int PLACES = 1, WIDTH = 32;
    Counts half[2];
    ALWAYS void add_unequal(uint32_t x, const uint32_t *w) {
        for (int i = 0; i < 2; i++) half[i].add_unequal(x, w + 16 * i);
    }
    ALWAYS void add_three(const uint32_t *x, const uint32_t *w, int apart) {
        for (int i = 0; i < 2; i++) half[i].add_three(x, w + 16 * i, apart);
    }
    ALWAYS void add_unequal_in(uint32_t x, const uint32_t *w, uint32_t mask) {
        for (int i = 0; i < 2; i++) half[i].add_unequal_in(x, w + 16 * i, mask);
    }
    ALWAYS void add_unequal_of(uint32_t x, const uint32_t *w, const uint32_t *counting) {
        for (int i = 0; i < 2; i++) half[i].add_unequal_of(x, w + 16 * i, counting + 16 * i);
    }
    ALWAYS void add_unequal_both(uint32_t x, const uint32_t *w, const uint32_t *counting, uint32_t mask) {
        for (int i = 0; i < 2; i++) half[i].add_unequal_both(x, w + 16 * i, counting + 16 * i, mask);
    }
    ALWAYS void add(const uint32_t *counting, uint32_t mask) {
        for (int i = 0; i < 2; i++) half[i].add(counting + 16 * i, mask);
    }
    ALWAYS unsigned at_most(const int32_t *limits) { return half[0].at_most(limits) | half[1].at_most(limits + 16) << 16; }
    ALWAYS void total(int32_t *to) {
        for (int i = 0; i < 2; i++) half[i].total(to + 16 * i);
    }
};

}  // namespace

extern const Kernels avx512vnni_kernels;
const Kernels avx512vnni_kernels = kernels<Sixteen, Twice>("AVX512 VNNI");
