// From counts of bits that differ to bits of the result.
#pragma once
#include "codes.h"

namespace {  // each instruction set has its own

// Turns counts into bits of the result: a sum reaches its bound if few enough bits differ. Padding outputs have limits of -1.
// WIDTH divides the bits of a word, and a word's first outputs overwrite it. The settings of several places are read once.
template <class Counts, bool HAS_ZERO, int... P> class FinishCounts {
    static constexpr uint32_t ALL = ~uint32_t(0) >> (WORD - Counts::WIDTH);
    const int words;
    const int64_t lower;
    const uint32_t *const flips;
    uint32_t *const to[sizeof...(P)];
    const int32_t *const limits[sizeof...(P)];

    static int64_t padded(const Step &step) { return (step.result.channels + Counts::WIDTH - 1) / Counts::WIDTH * Counts::WIDTH; }
    static const int32_t *limits_of(const Step &step, const Spot &spot) {
        return step.limits + (step.spans[spot.row] + step.spans[step.result.rows + spot.column]) * padded(step);
    }
    ALWAYS static void store(uint32_t bits, int shift, uint32_t *at) { *at = (shift ? *at : 0) | bits << shift; }
    ALWAYS void store(Counts &unequal, const int32_t *at, int shift, uint32_t flip, uint32_t lower_flip, uint32_t *bits) const {
        const uint32_t positive = unequal.at_most(at) ^ flip;
        store(positive, shift, bits);
        if (HAS_ZERO) store(positive | (unequal.at_most(at + lower) ^ lower_flip), shift, bits + words);
    }

  public:
    ALWAYS FinishCounts(const Step &step, uint8_t *arena, const Spot *spots)
        : words(words_of(step.result.channels)), lower(step.kinds * padded(step)), flips(step.flips),
          to{result_at<uint32_t>(step, arena, spots[P])...}, limits{limits_of(step, spots[P])...} {}
    ALWAYS void operator()(Counts *unequal, int first) const {
        const int word = first / WORD, shift = Counts::WIDTH == WORD ? 0 : first % WORD;
        const uint32_t flip = flips[word] >> shift & ALL, lower_flip = HAS_ZERO ? flips[words + word] >> shift & ALL : 0;
        (store(unequal[P], limits[P] + first, shift, flip, lower_flip, to[P] + word), ...);
    }
};

}  // namespace
