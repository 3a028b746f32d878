// Layers on signs: a product is a bit, a sum is a count of bits. Borders are left out tap by tap: there is no bit for 0.
// Weights: (outputs, taps, planes, words); of two planes the first holds signs, the second which are not 0.
#pragma once
#include "layers.h"

namespace {  // each instruction set has its own

// What one output sums over the taps of a window that lie inside.
template <bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO, class Bits>
inline int32_t window_of(const Step &step, const uint64_t *const *taps, const uint64_t *weight, int count) {
    const int words = int(step.count);
    int64_t total = 0;
    for (int tap = 0; tap < count; tap++) {
        const uint64_t *x = taps[tap];
        if (!x) continue;
        const uint64_t *w = weight + int64_t(tap) * words * (WEIGHT_HAS_ZERO ? 2 : 1);
        if (!SOURCE_HAS_ZERO && !WEIGHT_HAS_ZERO) {
            total += step.source.channels;
            for (int i = 0; i < words; i++) total -= 2 * Bits::count(x[i] ^ w[i]);
        } else {
            for (int i = 0; i < words; i++) {
                uint64_t counts = WEIGHT_HAS_ZERO ? w[words + i] : ~uint64_t(0);
                if (SOURCE_HAS_ZERO) counts &= x[words + i];
                total += Bits::count(counts) - 2 * Bits::count((x[i] ^ w[i]) & counts);
            }
        }
    }
    return int32_t(total);
}

template <bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO, class Bits>
void signs_of(const Step &step, uint8_t *arena, int begin, int end) {
    const int count = step.kernel[0] * step.kernel[1], outputs = step.result.channels;
    const int64_t each = int64_t(count) * step.count * (WEIGHT_HAS_ZERO ? 2 : 1);
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
            for (int first = 0; first < outputs; first += 64) {
                const int many = outputs - first < 64 ? outputs - first : 64;
                int32_t sums[64];
                for (int o = 0; o < many; o++)
                    sums[o] = window_of<SOURCE_HAS_ZERO, WEIGHT_HAS_ZERO, Bits>(step, taps, weight + (first + o) * each, count) * step.depth;
                finish_any<0>(step, sums, first, many, arena, row, column);
            }
        }
}

// what: bit 0, whether codes of the source may be 0; bit 1, whether weights may.
template <class Bits> void signs(const Step &step, uint8_t *arena, int begin, int end) {
    clear_bits(step, arena, begin, end);
    switch (step.what) {
        case 0: signs_of<false, false, Bits>(step, arena, begin, end); break;
        case 1: signs_of<true, false, Bits>(step, arena, begin, end); break;
        case 2: signs_of<false, true, Bits>(step, arena, begin, end); break;
        default: signs_of<true, true, Bits>(step, arena, begin, end);
    }
    border(step.result, arena, begin, end);
}

}  // namespace
