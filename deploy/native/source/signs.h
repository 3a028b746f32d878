// Layers on signs: a product is a bit, a sum is a count of bits. In a border every bit is 0.
// Weights: (blocks of WIDTH outputs, taps and words, planes, WIDTH); the first plane holds signs, the second marks nonzero weights.
// A sum is base - 2 * (bits that differ). The base depends on which taps lie in the border: it has a row for each kind of
// place. `spans` holds the kind of each row, then of each column. If the source may be 0, its second plane marks the bits to count.
#pragma once
#include "layers.h"

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

// Turns counts into bits of the result: a sum reaches its bound if few enough bits differ. Padding outputs have limits of -1.
// WIDTH divides the bits of a word, and a word's first outputs overwrite it. All settings of a block of outputs are read once.
template <class Counts> class FinishCounts {
    static constexpr uint32_t ALL = ~uint32_t(0) >> (WORD - Counts::WIDTH);
    const int word, words, shift;
    const bool has_zero;
    const int64_t padded, lower;
    const int32_t *const limits, *const rows, *const columns;
    const uint32_t flips, lower_flips;

    ALWAYS void store(uint32_t bits, uint32_t *to) const { *to = (shift ? *to : 0) | bits << shift; }

  public:
    ALWAYS FinishCounts(const Step &step, int first)
        : word(first / WORD), words(words_of(step.result.channels)), shift(Counts::WIDTH == WORD ? 0 : first % WORD), has_zero(step.edge >= 0),
          padded((step.result.channels + Counts::WIDTH - 1) / Counts::WIDTH * Counts::WIDTH), lower(step.kinds * padded),
          limits(step.limits + first), rows(step.spans), columns(step.spans + step.result.rows),
          flips(step.flips[word] >> shift & ALL), lower_flips(has_zero ? step.flips[words + word] >> shift & ALL : 0) {}
    ALWAYS void operator()(Counts &unequal, const Spot &spot, uint32_t *to) const {
        const int32_t *at = limits + (rows[spot.row] + columns[spot.column]) * padded;
        const uint32_t positive = unequal.at_most(at) ^ flips;
        store(positive, to + word);
        if (has_zero) store(positive | (unequal.at_most(at + lower) ^ lower_flips), to + words + word);
    }
};

// Computes a block of outputs at several places. Counts stay in registers only if every index is a constant, hence Indices.
template <class Lanes, class Counts, bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO, int... P>
ALWAYS void signs_of_places(const Step &step, uint8_t *arena, const Spot *spots, int many, int first, const uint32_t *weight, Indices<P...>) {
    constexpr int WIDTH = Counts::WIDTH, PLACES = sizeof...(P), BOTH = SOURCE_HAS_ZERO && WEIGHT_HAS_ZERO;
    const uint32_t *const from[] = {window_at<uint32_t>(step, arena, spots[P])...};
    const int words = words_of(step.source.channels);
    Counts unequal[] = {(void(P), Counts())...}, all[] = {(void(P), Counts())...};
    int32_t shared[PLACES] = {0};
    for (int64_t k = 0; k < step.count; k++, weight += WIDTH * (WEIGHT_HAS_ZERO ? 2 : 1)) {
        const int64_t at = step.offsets[k];
        (count_word<SOURCE_HAS_ZERO, WEIGHT_HAS_ZERO>(unequal[P], all[P], from[P][at],
                                                      SOURCE_HAS_ZERO ? from[P][at + words] : 0, weight, weight + WIDTH), ...);
        if (SOURCE_HAS_ZERO && !WEIGHT_HAS_ZERO) ((shared[P] += int32_t(__builtin_popcount(from[P][at + words]))), ...);
    }
    if (!SOURCE_HAS_ZERO && step.limits) {
        const FinishCounts<Counts> finish(step, first);
        uint32_t *const to = reinterpret_cast<uint32_t *>(arena + step.result.at);
        ((P < many ? finish(unequal[P], spots[P], to + spots[P].to) : void()), ...);
        return;
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
__attribute__((noinline)) void signs_at(const Step &step, uint8_t *arena, const Spot *spots, int many, int first, const uint32_t *weight) {
    signs_of_places<Lanes, Counts, SOURCE_HAS_ZERO, WEIGHT_HAS_ZERO>(step, arena, spots, many, first, weight,
                                                                     std::make_integer_sequence<int, PLACES>());
}

template <class Lanes, class Counts, bool SOURCE_HAS_ZERO, bool WEIGHT_HAS_ZERO>
void signs_of(const Step &step, uint8_t *arena, int begin, int end) {
    // Two counts for each sum take twice the registers.
    constexpr int PLACES = SOURCE_HAS_ZERO && WEIGHT_HAS_ZERO && Counts::PLACES > 1 ? Counts::PLACES / 2 : Counts::PLACES;
    const int channels = step.result.channels;
    const int64_t block = step.count * Counts::WIDTH * (WEIGHT_HAS_ZERO ? 2 : 1), blocks = (channels + Counts::WIDTH - 1) / Counts::WIDTH;
    // Some outputs at all places, which need their weights alone; or all outputs at some places, if all weights stay near.
    const int together = block * blocks * int64_t(sizeof(uint32_t)) <= NEAR ? channels : Counts::WIDTH;
    for (int from = 0; from < channels; from += together)
        each_tile<PLACES>(step, begin, end, [&](auto most, const Spot *spots, int count) {
            for (int first = from; first < from + together && first < channels; first += Counts::WIDTH)
                signs_at<Lanes, Counts, SOURCE_HAS_ZERO, WEIGHT_HAS_ZERO, decltype(most)::value>(
                    step, arena, spots, count, first, static_cast<const uint32_t *>(step.weight) + first / Counts::WIDTH * block);
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
