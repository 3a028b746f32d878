// AVX512 with VNNI, bit counts by nibble look-up: the first processors with VNNI (Cascade Lake) cannot count bits in vectors.
#include "sixteen.h"
#include "kernels.h"
#include "nibbles.h"

namespace {

// Sixteen outputs as two groups of eight.
struct Twice {
    static constexpr int PLACES = 1, WIDTH = 16;
    Counts half[2];
    ALWAYS void add_unequal(uint64_t x, const uint64_t *w) {
        for (int i = 0; i < 2; i++) half[i].add_unequal(x, w + 8 * i);
    }
    ALWAYS void add_unequal_in(uint64_t x, const uint64_t *w, uint64_t mask) {
        for (int i = 0; i < 2; i++) half[i].add_unequal_in(x, w + 8 * i, mask);
    }
    ALWAYS void add_unequal_of(uint64_t x, const uint64_t *w, const uint64_t *counting) {
        for (int i = 0; i < 2; i++) half[i].add_unequal_of(x, w + 8 * i, counting + 8 * i);
    }
    ALWAYS void add_unequal_both(uint64_t x, const uint64_t *w, const uint64_t *counting, uint64_t mask) {
        for (int i = 0; i < 2; i++) half[i].add_unequal_both(x, w + 8 * i, counting + 8 * i, mask);
    }
    ALWAYS void add(const uint64_t *counting, uint64_t mask) {
        for (int i = 0; i < 2; i++) half[i].add(counting + 8 * i, mask);
    }
    ALWAYS unsigned at_most(const int64_t *limits) { return half[0].at_most(limits) | half[1].at_most(limits + 8) << 8; }
    ALWAYS void total(int32_t *to) {
        for (int i = 0; i < 2; i++) half[i].total(to + 8 * i);
    }
};

}  // namespace

extern const Kernels avx512vnni_kernels;
const Kernels avx512vnni_kernels = kernels<Sixteen, Twice>("AVX512 VNNI");
