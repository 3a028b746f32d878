// Layers on signs: a product is a bit, a sum is a count of bits. Borders are left out tap by tap: there is no bit for 0.
// Weights: (blocks of EACH outputs, taps, planes, words, EACH); of two planes the first holds signs, the second which are not 0.
#pragma once
#include "layers.h"

namespace {  // each instruction set has its own

constexpr int EACH = 8;  // outputs that are counted at once

// What EACH outputs sum over the taps of a window that lie inside. Counts: add(bits that all share, bits of each output).
template <bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO, class Counts>
ALWAYS void window_of(const Step &step, const uint64_t *const *taps, int count, const uint64_t *weight, int32_t *sums) {
    const int words = int(step.count);
    Counts unequal, all;
    int64_t shared = 0;
    for (int tap = 0; tap < count; tap++, weight += words * EACH * (WEIGHT_HAS_ZERO ? 2 : 1)) {
        const uint64_t *x = taps[tap];
        if (!x) continue;
        if (!SOURCE_HAS_ZERO && !WEIGHT_HAS_ZERO) shared += step.source.channels;
        for (int i = 0; i < words; i++) {
            const uint64_t *w = weight + i * EACH, *counting = w + words * EACH;
            if (!SOURCE_HAS_ZERO && !WEIGHT_HAS_ZERO) unequal.add_unequal(x[i], w);
            else if (!WEIGHT_HAS_ZERO) {
                shared += __builtin_popcountll(x[words + i]);
                unequal.add_unequal_in(x[i], w, x[words + i]);
            } else {
                const uint64_t mask = SOURCE_HAS_ZERO ? x[words + i] : ~uint64_t(0);
                unequal.add_unequal_of(x[i], w, counting, mask);
                all.add(counting, mask);
            }
        }
    }
    int64_t minus[EACH], plus[EACH];
    unequal.total(minus);
    all.total(plus);
    for (int o = 0; o < EACH; o++) sums[o] = int32_t((shared + (WEIGHT_HAS_ZERO ? plus[o] : 0) - 2 * minus[o]) * step.depth);
}

template <bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO, class Counts>
void signs_of(const Step &step, uint8_t *arena, int begin, int end) {
    const int count = step.kernel[0] * step.kernel[1], outputs = step.result.channels;
    const int64_t block = int64_t(count) * step.count * EACH * (WEIGHT_HAS_ZERO ? 2 : 1);
    const uint64_t *weight = static_cast<const uint64_t *>(step.weight);
    const uint64_t *taps[1024];
    for (int row = begin; row < end; row++)
        for (int column = 0; column < step.result.columns; column++) {
            for (int i = 0; i < step.kernel[0]; i++) {
                const int y = row * step.stride[0] - step.padding[0] + i * step.dilation[0];
                for (int j = 0; j < step.kernel[1]; j++) {
                    const int x = column * step.stride[1] - step.padding[1] + j * step.dilation[1];
                    const bool inside = y >= 0 && y < step.source.rows && x >= 0 && x < step.source.columns;
                    taps[i * step.kernel[1] + j] =
                        inside ? row_of<uint64_t>(step.source, arena, y) + int64_t(x) * step.source.pitch : nullptr;
                }
            }
            for (int first = 0; first < outputs; first += EACH) {
                alignas(32) int32_t sums[EACH];
                window_of<SOURCE_HAS_ZERO, WEIGHT_HAS_ZERO, Counts>(step, taps, count, weight + first / EACH * block, sums);
                if (outputs - first >= EACH) finish_any<EACH>(step, sums, first, EACH, arena, row, column);
                else finish_any<0>(step, sums, first, outputs - first, arena, row, column);
            }
        }
}

// what: bit 0, whether codes of the source may be 0; bit 1, whether weights may.
template <class Counts> void signs(const Step &step, uint8_t *arena, int begin, int end) {
    clear_bits(step, arena, begin, end);
    switch (step.what) {
        case 0: signs_of<false, false, Counts>(step, arena, begin, end); break;
        case 1: signs_of<true, false, Counts>(step, arena, begin, end); break;
        case 2: signs_of<false, true, Counts>(step, arena, begin, end); break;
        default: signs_of<true, true, Counts>(step, arena, begin, end);
    }
    border(step.result, arena, begin, end);
}

}  // namespace
