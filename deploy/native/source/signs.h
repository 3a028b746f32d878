// Layers on signs: a product is a bit, a sum is a count of bits. In a border every bit is 0.
// Weights: (blocks of WIDTH outputs, taps and words, planes, WIDTH); the first plane holds signs, the second marks nonzero weights.
// Threes of words come first, see threes.h; `count` counts each once.
// A sum is base - 2 * (bits that differ). The base depends on which taps lie in the border: it has a row for each kind of
// place. `spans` holds the kind of each row, then of each column. If the source may be 0, its second plane marks the bits to count.
#pragma once
#include "layers.h"
#include "limits.h"
#include "threes.h"

namespace {  // each instruction set has its own

// Counts: bit counts of WIDTH outputs; add_unequal(bits shared by all outputs, bits of each output), its variants, and total.
template <bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO, class Counts>
ALWAYS void count_word(Counts &unequal, Counts &all, uint32_t x, uint32_t mask, const uint32_t *w, const uint32_t *counting) {
    if (!SOURCE_HAS_ZERO && !WEIGHT_HAS_ZERO) unequal.add_unequal(x, w);
    else if (!WEIGHT_HAS_ZERO) unequal.add_unequal_in(x, w, mask);
    else if (!SOURCE_HAS_ZERO) unequal.add_unequal_of(x, w, counting);
    else {
        unequal.add_unequal_both(x, w, counting, mask);
        all.add(counting, mask);
    }
}

// Returns the number of words in a block of outputs.
inline int64_t words_of_block(const Step &step) { return step.count + 2 * step.threes; }

// Computes outputs [first, last) at several places. Counts stay in registers only if every index is a constant, hence Indices.
template <class Counts, bool WEIGHT_HAS_ZERO, bool HAS_ZERO, int... P>
ALWAYS void bits_of_places(const Step &step, uint8_t *arena, const Spot *spots, int first, int last, const uint32_t *weight, Indices<P...>) {
    const uint32_t *const from[] = {window_at<uint32_t>(step, arena, spots[P])...};
    const FinishCounts<Counts, HAS_ZERO, P...> finish(step, arena, spots);  // a repeated place gets its bits again
    const int64_t count = step.count, threes = step.threes;
    const int32_t *const offsets = step.offsets;
    for (; first < last; first += Counts::WIDTH) {
        Counts unequal[] = {(void(P), Counts())...}, all[1];
        int64_t k = 0;
        if constexpr (!WEIGHT_HAS_ZERO)
            for (; k < threes; k++, weight += 3 * Counts::WIDTH) {
                const int64_t at = offsets[k];
                (unequal[P].add_three(from[P] + at, weight, Counts::WIDTH), ...);
            }
        for (; k < count; k++, weight += Counts::WIDTH * (WEIGHT_HAS_ZERO ? 2 : 1)) {
            const int64_t at = offsets[k];
            (count_word<false, WEIGHT_HAS_ZERO>(unequal[P], all[0], from[P][at], 0, weight, weight + Counts::WIDTH), ...);
        }
        finish(unequal, first);
    }
}

// Computes a block of outputs at several places, as sums.
template <class Lanes, class Counts, bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO, int... P>
ALWAYS void signs_of_places(const Step &step, uint8_t *arena, const Spot *spots, int many, int first, const uint32_t *weight, Indices<P...>) {
    constexpr int WIDTH = Counts::WIDTH, PLACES = sizeof...(P), BOTH = SOURCE_HAS_ZERO && WEIGHT_HAS_ZERO;
    const uint32_t *const from[] = {window_at<uint32_t>(step, arena, spots[P])...};
    const int words = words_of(step.source.channels);
    Counts unequal[] = {(void(P), Counts())...}, all[] = {(void(P), Counts())...};
    int32_t shared[PLACES] = {0};
    int64_t k = 0;
    if constexpr (!SOURCE_HAS_ZERO && !WEIGHT_HAS_ZERO)
        for (; k < step.threes; k++, weight += 3 * WIDTH) {
            const int64_t at = step.offsets[k];
            ((unequal[P].add_three(from[P] + at, weight, WIDTH)), ...);
        }
    for (; k < step.count; k++, weight += WIDTH * (WEIGHT_HAS_ZERO ? 2 : 1)) {
        const int64_t at = step.offsets[k];
        (count_word<SOURCE_HAS_ZERO, WEIGHT_HAS_ZERO>(unequal[P], all[P], from[P][at],
                                                      SOURCE_HAS_ZERO ? from[P][at + words] : 0, weight, weight + WIDTH), ...);
        if (SOURCE_HAS_ZERO && !WEIGHT_HAS_ZERO) ((shared[P] += int32_t(__builtin_popcount(from[P][at + words]))), ...);
    }
    alignas(64) int32_t sums[PLACES * WIDTH], plus[BOTH ? PLACES * WIDTH : 1];
    ((unequal[P].total(sums + P * WIDTH)), ...);
    if constexpr (BOTH) ((all[P].total(plus + P * WIDTH)), ...);
    const int32_t *const rows = step.spans, *const columns = step.spans + step.result.rows;
    const int outputs = (step.result.channels + WIDTH - 1) / WIDTH * WIDTH, left = step.result.channels - first;
    for (int p = 0; p < many; p++) {
        const int32_t *base = step.base + int64_t(rows[spots[p].row] + columns[spots[p].column]) * outputs + first;
        for (int o = 0; o < WIDTH; o++) {
            int32_t &sum = sums[p * WIDTH + o];
            sum = ((SOURCE_HAS_ZERO ? (WEIGHT_HAS_ZERO ? plus[p * WIDTH + o] : shared[p]) : base[o]) - 2 * sum) * step.depth;
        }
    }
    for (int p = 0; p < many; p += Lanes::PLACES)
        finish_places<Lanes, WIDTH / Lanes::WIDTH>(step, sums + p * WIDTH, first, left, arena, spots + p,
                                                   many - p < Lanes::PLACES ? many - p : Lanes::PLACES);
}

template <class Lanes, class Counts, bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO, int PLACES>
__attribute__((noinline)) void signs_at(const Step &step, uint8_t *arena, const Spot *spots, int many, int first, int last, const uint32_t *weight) {
    constexpr std::make_integer_sequence<int, PLACES> all{};
    if constexpr (!SOURCE_HAS_ZERO)
        if (step.limits)
            return step.edge < 0 ? bits_of_places<Counts, WEIGHT_HAS_ZERO, false>(step, arena, spots, first, last, weight, all)
                                 : bits_of_places<Counts, WEIGHT_HAS_ZERO, true>(step, arena, spots, first, last, weight, all);
    const int64_t block = words_of_block(step) * Counts::WIDTH * (WEIGHT_HAS_ZERO ? 2 : 1);
    for (; first < last; first += Counts::WIDTH, weight += block)
        signs_of_places<Lanes, Counts, SOURCE_HAS_ZERO, WEIGHT_HAS_ZERO>(step, arena, spots, many, first, weight, all);
}

template <class Lanes, class Counts, bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO>
void signs_of(const Step &step, uint8_t *arena, int begin, int end) {
    // Two counts for each sum take twice the registers.
    constexpr int PLACES = SOURCE_HAS_ZERO && WEIGHT_HAS_ZERO && Counts::PLACES > 1 ? Counts::PLACES / 2 : Counts::PLACES;
    const int channels = step.result.channels;
    const int64_t block = words_of_block(step) * Counts::WIDTH * (WEIGHT_HAS_ZERO ? 2 : 1), blocks = (channels + Counts::WIDTH - 1) / Counts::WIDTH;
    // Some outputs at all places, which need their weights alone; or all outputs at some places, if all weights stay near.
    const int together = block * blocks * int64_t(sizeof(uint32_t)) <= NEAR ? channels : Counts::WIDTH;
    for (int from = 0; from < channels; from += together)
        each_tile<PLACES>(step, begin, end, [&](auto most, const Spot *spots, int count) {
            signs_at<Lanes, Counts, SOURCE_HAS_ZERO, WEIGHT_HAS_ZERO, decltype(most)::value>(
                step, arena, spots, count, from, from + together < channels ? from + together : channels,
                static_cast<const uint32_t *>(step.weight) + from / Counts::WIDTH * block);
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
