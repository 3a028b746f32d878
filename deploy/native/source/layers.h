// Layers on whole numbers, for any instruction set that says how it multiplies (a Lanes policy).
// A window is a list of offsets; at each stand 4 bytes, two shorts or four bytes, that all channels of a block multiply.
#pragma once
#include "codes.h"
#include <utility>

namespace {  // each instruction set has its own

// Lanes: WIDTH channels a vector; Vector; zero(); repeat(four bytes); pairs(sums, x, weights) and store; for bytes fours and widen.
// The sums of a block live in registers: compilers keep an array there if every index is a constant, hence Indices.
template <int... I> using Indices = std::integer_sequence<int, I...>;

template <class Lanes, int VECTORS, int... P, int... I>
ALWAYS void add_pairs(typename Lanes::Vector *total, const uint8_t *const *from, int32_t offset, const int16_t *weight,
                      Indices<P...>, Indices<I...>) {
    const typename Lanes::Vector x[] = {Lanes::repeat(from[P] + offset)...};
    ((total[I] = Lanes::pairs(total[I], x[I / VECTORS], weight + (I % VECTORS) * 2 * Lanes::WIDTH)), ...);
}

template <class Lanes, int VECTORS, int... P, int... I>
ALWAYS void add_fours(typename Lanes::Vector *total, const uint8_t *const *from, int32_t offset, const int8_t *weight,
                      Indices<P...>, Indices<I...>) {
    const typename Lanes::Vector x[] = {Lanes::repeat(from[P] + offset)...};
    ((total[I] = Lanes::fours(total[I], x[I / VECTORS], weight + (I % VECTORS) * 4 * Lanes::WIDTH)), ...);
}

template <class Lanes, int PLACES, int VECTORS, int... I>
ALWAYS void pairs_of(const Step &step, const uint8_t *const *from, const int32_t *offsets, const int16_t *weight,
                     int32_t *sums, Indices<I...> all) {
    typename Lanes::Vector total[] = {(void(I), Lanes::zero())...};
    for (int64_t k = 0; k < step.count; k++, weight += VECTORS * 2 * Lanes::WIDTH)
        add_pairs<Lanes, VECTORS>(total, from, offsets[k], weight, std::make_integer_sequence<int, PLACES>(), all);
    (Lanes::store(sums + I * Lanes::WIDTH, total[I]), ...);
}

// Sums of four products of bytes, two in each 16 bits, which hold `depth` of them; then they go on in 32 bits.
template <class Lanes, int PLACES, int VECTORS, int... I>
ALWAYS void fours_of(const Step &step, const uint8_t *const *from, const int32_t *offsets, const int8_t *weight,
                     int32_t *sums, Indices<I...> all) {
    for (int i = 0; i < PLACES * VECTORS * Lanes::WIDTH; i++) sums[i] = 0;
    for (int64_t begin = 0; begin < step.count; begin += step.depth) {
        const int64_t end = begin + step.depth < step.count ? begin + step.depth : step.count;
        typename Lanes::Vector part[] = {(void(I), Lanes::zero())...};
        for (int64_t k = begin; k < end; k++, weight += VECTORS * 4 * Lanes::WIDTH)
            add_fours<Lanes, VECTORS>(part, from, offsets[k], weight, std::make_integer_sequence<int, PLACES>(), all);
        (Lanes::widen(sums + I * Lanes::WIDTH, part[I]), ...);
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

template <class Lanes, int PLACES, int VECTORS>
inline void places(const Step &step, uint8_t *arena, int row, int column, int group, int block, const int32_t *offsets) {
    const int wide = VECTORS * Lanes::WIDTH, unit = step.source.kind == BYTE ? 1 : 2;
    const uint8_t *from[PLACES];
    const int64_t pitch = int64_t(step.source.pitch) * unit;
    const int64_t line = (int64_t(step.source.left) + step.source.columns + step.source.right) * pitch;
    const uint8_t *first = arena + step.source.at
        + (step.source.top - step.padding[0] + int64_t(row) * step.stride[0]) * line
        + (step.source.left - step.padding[1]) * pitch;
    for (int p = 0; p < PLACES; p++) from[p] = first + int64_t(column + p) * step.stride[1] * pitch;
    alignas(64) int32_t sums[PLACES * VECTORS * Lanes::WIDTH];
    const int64_t place = (int64_t(group) * step.outputs + block) * step.count;
    if (step.what)
        fours<Lanes, PLACES, VECTORS>(step, from, offsets, static_cast<const int8_t *>(step.weight) + place * 4, sums);
    else
        pairs<Lanes, PLACES, VECTORS>(step, from, offsets, static_cast<const int16_t *>(step.weight) + place * 2, sums);
    const int each = step.result.channels / step.groups, left = each - block;
    for (int p = 0; p < PLACES; p++)
        if (left >= wide) finish_any<VECTORS * Lanes::WIDTH>(step, sums + p * wide, group * each + block, wide, arena, row, column + p);
        else finish_any<0>(step, sums + p * wide, group * each + block, left, arena, row, column + p);
}

template <class Lanes, int VECTORS>
inline void block_of(const Step &step, uint8_t *arena, int begin, int end, int group, int block, const int32_t *offsets) {
    for (int row = begin; row < end; row++) {
        int column = 0;
        for (; column + 4 <= step.result.columns; column += 4)
            places<Lanes, 4, VECTORS>(step, arena, row, column, group, block, offsets);
        for (; column < step.result.columns; column++)
            places<Lanes, 1, VECTORS>(step, arena, row, column, group, block, offsets);
    }
}

inline void clear_bits(const Step &step, uint8_t *arena, int begin, int end) {
    if (step.result.kind != BITS) return;
    for (int row = begin; row < end; row++)
        std::memset(row_of<uint64_t>(step.result, arena, row), 0, sizeof(uint64_t) * row_pitch<uint64_t>(step.result));
}

// Blocks of up to three vectors of channels; the weights of a block lie together.
template <class Lanes> void layer(const Step &step, uint8_t *arena, int begin, int end) {
    clear_bits(step, arena, begin, end);
    for (int group = 0; group < step.groups; group++) {
        const int32_t *offsets = step.offsets + group * step.count;
        for (int block = 0; block < step.outputs;) {
            const int vectors = (step.outputs - block) / Lanes::WIDTH;
            if (vectors >= 3) block_of<Lanes, 3>(step, arena, begin, end, group, block, offsets);
            else if (vectors == 2) block_of<Lanes, 2>(step, arena, begin, end, group, block, offsets);
            else block_of<Lanes, 1>(step, arena, begin, end, group, block, offsets);
            block += Lanes::WIDTH * (vectors < 3 ? vectors : 3);
        }
    }
    border(step.result, arena, begin, end);
}

// One channel a group: all channels of a place at once, a tap at a time. Weights are (taps, channels), shorts.
template <class T> inline void depthwise_of(const Step &step, uint8_t *arena, int begin, int end) {
    const int channels = step.result.channels;
    const int16_t *weight = static_cast<const int16_t *>(step.weight);
    for (int row = begin; row < end; row++)
        for (int column = 0; column < step.result.columns; column++)
            for (int first = 0; first < channels; first += 64) {
                const int count = channels - first < 64 ? channels - first : 64;
                int32_t sums[64] = {0};
                for (int i = 0; i < step.kernel[0]; i++) {
                    const T *line = row_of<T>(step.source, arena, row * step.stride[0] - step.padding[0] + i * step.dilation[0]);
                    for (int j = 0; j < step.kernel[1]; j++) {
                        const int at = column * step.stride[1] - step.padding[1] + j * step.dilation[1];
                        const T *x = line + int64_t(at) * step.source.pitch + first;
                        const int16_t *w = weight + int64_t(i * step.kernel[1] + j) * channels + first;
                        for (int c = 0; c < count; c++) sums[c] += int32_t(x[c]) * w[c];
                    }
                }
                finish_any<0>(step, sums, first, count, arena, row, column);
            }
}

inline void depthwise(const Step &step, uint8_t *arena, int begin, int end) {
    clear_bits(step, arena, begin, end);
    if (step.source.kind == BYTE) depthwise_of<uint8_t>(step, arena, begin, end);
    else depthwise_of<int16_t>(step, arena, begin, end);
    border(step.result, arena, begin, end);
}

}  // namespace
