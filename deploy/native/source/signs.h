// Layers on signs: a product is a bit, a sum is a count of bits. In a border every bit is 0.
// Weights: (blocks of WIDTH outputs, taps and words, planes, WIDTH); the first plane holds signs, the second marks nonzero weights.
// A sum is base - 2 * (bits that differ). The base depends on which taps lie in the border: it has a row for each kind of
// place. `spans` holds the kind of each row, then of each column. If the source may be 0, its second plane marks the bits to count.
#pragma once
#include "layers.h"

namespace {  // each instruction set has its own

// Counts: bit counts of WIDTH outputs; add_unequal(bits shared by all outputs, bits of each output), its variants, and total.
template <bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO, class Counts>
ALWAYS void count_word(Counts &unequal, Counts &all, uint64_t x, uint64_t mask, const uint64_t *w, const uint64_t *counting) {
    if (!SOURCE_HAS_ZERO && !WEIGHT_HAS_ZERO) unequal.add_unequal(x, w);
    else if (!WEIGHT_HAS_ZERO) unequal.add_unequal_in(x, w, mask);
    else if (!SOURCE_HAS_ZERO) unequal.add_unequal_of(x, w, counting);
    else {
        unequal.add_unequal_both(x, w, counting, mask);
        all.add(counting, mask);
    }
}

// Turns counts into bits of the result: a sum reaches its bound if few enough bits differ. Padding outputs have limits of -1.
template <class Counts>
ALWAYS void finish_counts(const Step &step, Counts &unequal, int kind, int first, uint64_t *to) {
    constexpr uint64_t ALL = (uint64_t(1) << Counts::WIDTH) - 1;
    const int words = (step.result.channels + 63) / 64, word = first / 64, shift = first % 64;
    const int64_t padded = (step.result.channels + Counts::WIDTH - 1) / Counts::WIDTH * Counts::WIDTH;
    const int64_t *limits = step.limits + kind * padded + first;
    uint64_t bits = unequal.at_most(limits) ^ (step.flips[word] >> shift & ALL);
    to[word] |= bits << shift;
    if (step.edge < 0) return;
    bits |= unequal.at_most(limits + step.kinds * padded) ^ (step.flips[words + word] >> shift & ALL);
    to[words + word] |= bits << shift;
}

template <class Lanes, class Counts, bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO, int... P>
ALWAYS void signs_at(const Step &step, uint8_t *arena, const Spot *spots, int many, int first, const uint64_t *weight,
                     Indices<P...>) {
    constexpr int WIDTH = Counts::WIDTH, VECTORS = WIDTH / Lanes::WIDTH, PLACES = sizeof...(P), BOTH = SOURCE_HAS_ZERO && WEIGHT_HAS_ZERO;
    const uint64_t *const from[] = {window_at<uint64_t>(step, arena, spots[P])...};
    const int words = (step.source.channels + 63) / 64;
    Counts unequal[PLACES], all[BOTH ? PLACES : 1];
    int32_t shared[PLACES] = {0};
    for (int64_t k = 0; k < step.count; k++, weight += WIDTH * (WEIGHT_HAS_ZERO ? 2 : 1)) {
        const int32_t at = step.offsets[k];
        (count_word<SOURCE_HAS_ZERO, WEIGHT_HAS_ZERO>(unequal[P], all[BOTH ? P : 0], from[P][at],
                                                      SOURCE_HAS_ZERO ? from[P][at + words] : 0, weight, weight + WIDTH), ...);
        if (SOURCE_HAS_ZERO && !WEIGHT_HAS_ZERO) ((shared[P] += int32_t(__builtin_popcountll(from[P][at + words]))), ...);
    }
    const int32_t *rows = step.spans, *columns = step.spans + step.result.rows;
    if (!SOURCE_HAS_ZERO && step.limits) {
        for (int p = 0; p < many; p++) {
            const int kind = rows[spots[p].row] + columns[spots[p].column];
            finish_counts(step, unequal[p], kind, first, result_at<uint64_t>(step, arena, spots[p]));
        }
        return;
    }
    const int outputs = (step.result.channels + WIDTH - 1) / WIDTH * WIDTH, left = step.result.channels - first;
    for (int p = 0; p < many; p++) {
        alignas(64) int32_t sums[WIDTH], minus[WIDTH], plus[WIDTH];
        unequal[p].total(minus);
        if (BOTH) all[p].total(plus);
        const int32_t *base = step.base + int64_t(rows[spots[p].row] + columns[spots[p].column]) * outputs + first;
        for (int o = 0; o < WIDTH; o++)
            sums[o] = ((SOURCE_HAS_ZERO ? (WEIGHT_HAS_ZERO ? plus[o] : shared[p]) : base[o]) - 2 * minus[o]) * step.depth;
        finish_places<Lanes, VECTORS>(step, sums, first, left, arena, spots + p, 1);
    }
}

constexpr int64_t NEAR = 16384;  // bytes of weights that stay in the first cache beside a few places

template <class Lanes, class Counts, bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO>
void signs_of(const Step &step, uint8_t *arena, int begin, int end) {
    const int channels = step.result.channels;
    const int64_t block = step.count * Counts::WIDTH * (WEIGHT_HAS_ZERO ? 2 : 1), blocks = (channels + Counts::WIDTH - 1) / Counts::WIDTH;
    // Some outputs at all places, which need their weights alone; or all outputs at some places, if all weights stay near.
    const int together = block * blocks * int64_t(sizeof(uint64_t)) <= NEAR ? channels : Counts::WIDTH;
    for (int from = 0; from < channels; from += together)
        each_tile<Counts::PLACES>(step, begin, end, [&](auto most, const Spot *spots, int count) {
            for (int first = from; first < from + together && first < channels; first += Counts::WIDTH)
                signs_at<Lanes, Counts, SOURCE_HAS_ZERO, WEIGHT_HAS_ZERO>(
                    step, arena, spots, count, first, static_cast<const uint64_t *>(step.weight) + first / Counts::WIDTH * block,
                    std::make_integer_sequence<int, decltype(most)::value>());
        });
}

// what: bit 0: codes of the source may be 0; bit 1: weights may be 0.
template <class Lanes, class Counts> void signs(const Step &step, uint8_t *arena, int begin, int end) {
    switch (step.what) {
        case 0: signs_of<Lanes, Counts, false, false>(step, arena, begin, end); break;
        case 1: signs_of<Lanes, Counts, true, false>(step, arena, begin, end); break;
        case 2: signs_of<Lanes, Counts, false, true>(step, arena, begin, end); break;
        default: signs_of<Lanes, Counts, true, true>(step, arena, begin, end);
    }
}

}  // namespace
