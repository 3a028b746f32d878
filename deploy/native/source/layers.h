// Integer layers for any instruction set that defines how it multiplies (a Lanes policy).
// A window is a list of offsets; at each are 4 bytes, two shorts or four bytes, which are multiplied for all channels of a block.
#pragma once
#include "totals.h"

namespace {  // each instruction set has its own

// Lanes: WIDTH channels in a vector; PLACES places at once; Vector; zero(); repeat(four bytes); pairs(sums, x, weights); store.
// For bytes: fours and, unless WHOLE, widen. As bits: at_least(sums, biases, bounds), not_negative, above, below;
// if WHOLE, reached(vector of sums, bounds).
// If CODES: the functions that Coder calls. If DEPTHWISE_LANES > 0: DepthwiseSums and
// DepthwiseFinish, for that many lanes of a depthwise layer.
// WIDE_PLACES: places of four vectors of outputs that are summed in fp64 at once.
// The sums of a block are in registers. Compilers keep an array there only if every index is a constant, hence Indices.
constexpr int BLOCK = 3;  // vectors

template <int... I> using Indices = std::integer_sequence<int, I...>;

// One place at a time: the operands of several places do not fit the registers.
template <class Lanes, int... V>
ALWAYS void add_place(typename Lanes::Vector *total, const uint8_t *from, const int16_t *weight, Indices<V...>) {
    const typename Lanes::Vector x = Lanes::repeat(from);
    ((total[V] = Lanes::pairs(total[V], x, weight + V * 2 * Lanes::WIDTH)), ...);
}

template <class Lanes, int... V>
ALWAYS void add_place(typename Lanes::Vector *total, const uint8_t *from, const int8_t *weight, Indices<V...>) {
    const typename Lanes::Vector x = Lanes::repeat(from);
    ((total[V] = Lanes::fours(total[V], x, weight + V * 4 * Lanes::WIDTH)), ...);
}

template <class Lanes, int VECTORS, class Weight, int... P>
ALWAYS void add_places(typename Lanes::Vector *total, const uint8_t *const *from, int32_t offset, const Weight *weight,
                       Indices<P...>) {
    (add_place<Lanes>(total + P * VECTORS, from[P] + offset, weight, std::make_integer_sequence<int, VECTORS>()), ...);
}

template <class Lanes, int PLACES, int VECTORS, int... I>
ALWAYS void pairs_of(const Step &step, const uint8_t *const *from, const int32_t *offsets, const int16_t *weight,
                     int32_t *sums, Indices<I...>) {
    typename Lanes::Vector total[] = {(void(I), Lanes::zero())...};
    for (int64_t k = 0; k < step.count; k++, weight += VECTORS * 2 * Lanes::WIDTH)
        add_places<Lanes, VECTORS>(total, from, offsets[k], weight, std::make_integer_sequence<int, PLACES>());
    (Lanes::store(sums + I * Lanes::WIDTH, total[I]), ...);
}

// Sums fours of byte products. Without Lanes::WHOLE, 16 bits hold `depth` sums of two products, which are then added in 32 bits.
template <class Lanes, int PLACES, int VECTORS, int... I>
ALWAYS void fours_of(const Step &step, const uint8_t *const *from, const int32_t *offsets, const int8_t *weight,
                     int32_t *sums, Indices<I...>) {
    if constexpr (Lanes::WHOLE) {
        typename Lanes::Vector total[] = {(void(I), Lanes::zero())...};
        for (int64_t k = 0; k < step.count; k++, weight += VECTORS * 4 * Lanes::WIDTH)
            add_places<Lanes, VECTORS>(total, from, offsets[k], weight, std::make_integer_sequence<int, PLACES>());
        (Lanes::store(sums + I * Lanes::WIDTH, total[I]), ...);
    } else {
        for (int i = 0; i < PLACES * VECTORS * Lanes::WIDTH; i++) sums[i] = 0;
        for (int64_t begin = 0; begin < step.count; begin += step.depth) {
            const int64_t end = begin + step.depth < step.count ? begin + step.depth : step.count;
            typename Lanes::Vector part[] = {(void(I), Lanes::zero())...};
            for (int64_t k = begin; k < end; k++, weight += VECTORS * 4 * Lanes::WIDTH)
                add_places<Lanes, VECTORS>(part, from, offsets[k], weight, std::make_integer_sequence<int, PLACES>());
            (Lanes::widen(sums + I * Lanes::WIDTH, part[I]), ...);
        }
    }
}

template <class Lanes, int PLACES, int VECTORS>
__attribute__((noinline)) void pairs(const Step &step, const uint8_t *const *from, const int32_t *offsets, const int16_t *weight, int32_t *sums) {
    pairs_of<Lanes, PLACES, VECTORS>(step, from, offsets, weight, sums, std::make_integer_sequence<int, PLACES * VECTORS>());
}

template <class Lanes, int PLACES, int VECTORS>
__attribute__((noinline)) void fours(const Step &step, const uint8_t *const *from, const int32_t *offsets, const int8_t *weight, int32_t *sums) {
    fours_of<Lanes, PLACES, VECTORS>(step, from, offsets, weight, sums, std::make_integer_sequence<int, PLACES * VECTORS>());
}

// Turns sums of vectors of 16 channels into bits. Channels beyond the last one never reach their bound, and fill its word with zeros.
template <class Lanes, int VECTORS> class FinishSums {
    const int32_t *const bounds;
    uint16_t flips[VECTORS];
    const bool fill;

    template <int... V> ALWAYS void store(const typename Lanes::Vector *total, uint16_t *to, Indices<V...>) const {
        ((to[V] = uint16_t(Lanes::reached(total[V], bounds + V * Lanes::WIDTH) ^ flips[V])), ...);
        if (fill) to[VECTORS] = 0;
    }

  public:
    ALWAYS FinishSums(const Step &step, int first)
        : bounds(step.bounds + first), fill((first / 16 + VECTORS) % 2 && first + VECTORS * 16 >= step.result.channels) {
        std::memcpy(flips, reinterpret_cast<const uint16_t *>(step.flips) + first / 16, sizeof flips);
    }
    ALWAYS void operator()(const typename Lanes::Vector *total, uint16_t *to) const { store(total, to, std::make_integer_sequence<int, VECTORS>()); }
};

// Fours of bytes whose sums become bits in the registers. Sums start at the bias.
template <class Lanes, int PLACES, int VECTORS, int... I, int... P>
ALWAYS void signs_by_fours(const Step &step, const uint8_t *const *from, const int32_t *offsets, const int8_t *weight, int first,
                           uint8_t *arena, const Spot *spots, Indices<I...>, Indices<P...> all) {
    const int32_t *const bias = step.bias + first;
    typename Lanes::Vector total[] = {Lanes::load(bias + I % VECTORS * Lanes::WIDTH)...};
    for (int64_t k = 0; k < step.count; k++, weight += VECTORS * 4 * Lanes::WIDTH)
        add_places<Lanes, VECTORS>(total, from, offsets[k], weight, all);
    const FinishSums<Lanes, VECTORS> finish(step, first);
    uint16_t *const to = reinterpret_cast<uint16_t *>(arena + step.result.at) + first / 16;
    (finish(total + P * VECTORS, to + 2 * spots[P].to), ...);  // a repeated place gets its bits again
}

template <class Lanes, int PLACES, int VECTORS>
__attribute__((noinline)) void signs_of_fours(const Step &step, const uint8_t *const *from, const int32_t *offsets, const int8_t *weight,
                                              int first, uint8_t *arena, const Spot *spots) {
    signs_by_fours<Lanes, PLACES, VECTORS>(step, from, offsets, weight, first, arena, spots,
                                           std::make_integer_sequence<int, PLACES * VECTORS>(), std::make_integer_sequence<int, PLACES>());
}

template <class Lanes, int PLACES, int VECTORS>
inline void places(const Step &step, uint8_t *arena, const Spot *spots, const uint8_t *const *from, int count, int group, int block,
                   const int32_t *offsets) {
    alignas(64) int32_t sums[PLACES * VECTORS * Lanes::WIDTH];
    const int64_t place = (int64_t(group) * step.outputs + block) * step.count;
    // 16 outputs fill half a word, so no place reads what another block has written. Groups may begin within a half.
    if constexpr (Lanes::WHOLE && Lanes::WIDTH == 16)
        if (step.what && step.result.kind == BITS && step.edge < 0 && step.groups == 1 && !step.each)
            return signs_of_fours<Lanes, PLACES, VECTORS>(step, from, offsets, static_cast<const int8_t *>(step.weight) + place * 4, block, arena, spots);
    if (step.what)
        fours<Lanes, PLACES, VECTORS>(step, from, offsets, static_cast<const int8_t *>(step.weight) + place * 4, sums);
    else
        pairs<Lanes, PLACES, VECTORS>(step, from, offsets, static_cast<const int16_t *>(step.weight) + place * 2, sums);
    const int each = step.result.channels / step.groups;
    if (step.each)
        for (int p = 0; p < count; p++) add_each<Lanes, VECTORS * Lanes::WIDTH>(step, arena, spots[p], group, group * each + block, sums + p * VECTORS * Lanes::WIDTH);
    finish_places<Lanes, VECTORS>(step, sums, group * each + block, each - block, arena, spots, count);
}

// Outputs of a group from `from` to `to` at all places, in blocks of up to three vectors; the weights of a block are contiguous.
template <class Lanes>
inline void outputs_of(const Step &step, uint8_t *arena, int begin, int end, int group, int from, int to, const int32_t *offsets) {
    each_tile<Lanes::PLACES>(step, begin, end, [&](auto most, const Spot *spots, int count) {
        constexpr int PLACES = decltype(most)::value;
        const uint8_t *windows[PLACES];
        for (int p = 0; p < PLACES; p++)
            windows[p] = step.source.kind == BYTE ? window_at<uint8_t>(step, arena, spots[p])
                                                  : reinterpret_cast<const uint8_t *>(window_at<int16_t>(step, arena, spots[p]));
        for (int block = from, vectors; block < to; block += Lanes::WIDTH * (vectors < BLOCK ? vectors : BLOCK)) {
            vectors = (step.outputs - block) / Lanes::WIDTH;
            if (vectors >= BLOCK) places<Lanes, PLACES, BLOCK>(step, arena, spots, windows, count, group, block, offsets);
            else if (vectors == 2) places<Lanes, PLACES, 2>(step, arena, spots, windows, count, group, block, offsets);
            else places<Lanes, PLACES, 1>(step, arena, spots, windows, count, group, block, offsets);
        }
    });
}

constexpr int64_t NEAR = 16384;  // bytes of weights that stay in the first cache beside a few places

// A block of outputs at all places, which need its weights alone; or all outputs at some places, if all weights stay near.
template <class Lanes> void layer(const Step &step, uint8_t *arena, int begin, int end) {
    const int together = step.outputs * step.count * 4 <= NEAR ? step.outputs : BLOCK * Lanes::WIDTH;
    for (int group = 0; group < step.groups; group++)
        for (int from = 0; from < step.outputs; from += together)
            outputs_of<Lanes>(step, arena, begin, end, group, from, from + together < step.outputs ? from + together : step.outputs,
                              step.offsets + group * step.count);
}

}  // namespace
