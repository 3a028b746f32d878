// Integer layers for any instruction set that defines how it multiplies (a Lanes policy).
// A window is a list of offsets; at each are 4 bytes, two shorts or four bytes, which are multiplied for all channels of a block.
#pragma once
#include "codes.h"
#ifdef __AVX512BW__
#include <immintrin.h>
#endif

namespace {  // each instruction set has its own

// Lanes: WIDTH channels in a vector; PLACES places at once; Vector; zero(); repeat(four bytes); pairs(sums, x, weights); store.
// For bytes: fours and, unless WHOLE, widen. As bits: at_least(sums, biases, bounds), not_negative, above, below.
// If CODES: the functions that Coder calls. If DEPTHWISE_LANES > 0: DepthwiseSums and
// DepthwiseFinish, for that many lanes of a depthwise layer.
// WIDE_PLACES: places that are summed in fp64 at once.
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

// Weights beyond int8 are factor * w + each with w stored: their sums are factor times the sum, plus `each` times the window's total.
template <class Lanes, int COUNT>
ALWAYS void add_each(const Step &step, const uint8_t *arena, const Spot &spot, int group, int first, int32_t *__restrict sums) {
    const int32_t *totals = row_of<int32_t>(step.other, const_cast<uint8_t *>(arena), spot.row) + spot.column * step.other.pitch;
    const int32_t *__restrict each = step.each + first;
    if constexpr (Lanes::CODES) {
        const auto total = Lanes::all(totals[group]), factor = Lanes::all(step.factor);
        for (int i = 0; i < COUNT; i += Lanes::WIDTH)
            Lanes::store(sums + i, Lanes::plus(Lanes::product(Lanes::load(sums + i), factor), Lanes::product(Lanes::load(each + i), total)));
    } else {
        const uint32_t total = uint32_t(totals[group]), factor = uint32_t(step.factor);
        for (int i = 0; i < COUNT; i++) sums[i] = int32_t(uint32_t(sums[i]) * factor + uint32_t(each[i]) * total);
    }
}

// The sum of `length` contiguous bytes.
inline int32_t total_of(const uint8_t *x, int length) {
#ifdef __AVX512BW__
    if (length <= 16) {
        const __m128i found = _mm_maskz_loadu_epi8(__mmask16((1u << length) - 1), x), sums = _mm_sad_epu8(found, _mm_setzero_si128());
        return _mm_cvtsi128_si32(sums) + _mm_extract_epi32(sums, 2);
    }
    const __m512i zero = _mm512_setzero_si512();
    __m512i sums = zero;
    for (; length >= 64; x += 64, length -= 64) sums = _mm512_add_epi64(sums, _mm512_sad_epu8(_mm512_loadu_si512(x), zero));
    const __m512i rest = _mm512_maskz_loadu_epi8((__mmask64(1) << length) - 1, x);
    return int32_t(_mm512_reduce_add_epi64(_mm512_add_epi64(sums, _mm512_sad_epu8(rest, zero))));
#else
    int32_t total = 0;
    for (int k = 0; k < length; k++) total += x[k];
    return total;
#endif
}

// The total of each window's bytes, for each group. A contiguous row of a window is one piece.
inline void totals(const Step &step, uint8_t *arena, int begin, int end) {
    const Value &in = step.source;
    const int inputs = in.channels / step.groups;
    const bool whole = step.groups == 1 && step.dilation[1] == 1 && in.pitch == in.channels;
    const int pieces = whole ? 1 : step.kernel[1], length = whole ? inputs * step.kernel[1] : inputs;
    for (int row = begin; row < end; row++) {
        const Spot spot = row_begin(step, row);
        const uint8_t *first = window_at<uint8_t>(step, arena, spot);
        int32_t *to = result_at<int32_t>(step, arena, spot);
        for (int column = 0; column < step.result.columns; column++, first += step.stride[1] * in.pitch, to += step.result.pitch)
            for (int group = 0; group < step.groups; group++) {
                int32_t total = 0;
                for (int i = 0; i < step.kernel[0]; i++)
                    for (int j = 0; j < pieces; j++) total += total_of(first + tap(step, i, j) + group * inputs, length);
                to[group] = total;
            }
    }
}

template <class Lanes, int PLACES, int VECTORS>
inline void places(const Step &step, uint8_t *arena, const Spot *spots, int count, int group, int block, const int32_t *offsets) {
    const uint8_t *from[PLACES];
    for (int p = 0; p < PLACES; p++)
        from[p] = step.source.kind == BYTE ? window_at<uint8_t>(step, arena, spots[p])
                                           : reinterpret_cast<const uint8_t *>(window_at<int16_t>(step, arena, spots[p]));
    alignas(64) int32_t sums[PLACES * VECTORS * Lanes::WIDTH];
    const int64_t place = (int64_t(group) * step.outputs + block) * step.count;
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
        for (int block = from, vectors; block < to; block += Lanes::WIDTH * (vectors < BLOCK ? vectors : BLOCK)) {
            vectors = (step.outputs - block) / Lanes::WIDTH;
            if (vectors >= BLOCK) places<Lanes, PLACES, BLOCK>(step, arena, spots, count, group, block, offsets);
            else if (vectors == 2) places<Lanes, PLACES, 2>(step, arena, spots, count, group, block, offsets);
            else places<Lanes, PLACES, 1>(step, arena, spots, count, group, block, offsets);
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
