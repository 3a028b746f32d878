// Layers on bytes in tiles of a matrix unit: up to 64 bytes of the windows of 16 places, times the same bytes' weights of 16 outputs.
// Tiles: a policy with AMX's operations configure, zero, load, multiply, store and release.
#pragma once
#include "layers.h"
#include "peak.h"
#include "pieces.h"
#include "popcnt.h"

extern const Kernels avx512popcnt_kernels;

namespace {  // each instruction set has its own

constexpr int SUMS = 0, PLACES_IN = 4, WEIGHTS_IN = 6;  // the first tile of each; two tiles of places times two of weights

// Sums of SIDES * 16 places and VECTORS * 16 outputs, (places, outputs).
template <class Tiles, int SIDES, int VECTORS>
inline void sums_of(const Side *sides, int64_t tiles, const int8_t *weight, int64_t size, int32_t *sums) {
    const Side one = sides[0], two = sides[SIDES - 1];
    Tiles::template zero<SUMS>();
    if constexpr (VECTORS > 1) Tiles::template zero<SUMS + 1>();
    if constexpr (SIDES > 1) Tiles::template zero<SUMS + 2>();
    if constexpr (SIDES > 1 && VECTORS > 1) Tiles::template zero<SUMS + 3>();
    for (int64_t k = 0; k < tiles; k++, weight += VECTORS * size) {
        Tiles::template load<PLACES_IN>(one.tile(k), one.stride);
        Tiles::template load<WEIGHTS_IN>(weight, 64);
        Tiles::template multiply<SUMS, PLACES_IN, WEIGHTS_IN>();
        if constexpr (VECTORS > 1) {
            Tiles::template load<WEIGHTS_IN + 1>(weight + size, 64);
            Tiles::template multiply<SUMS + 1, PLACES_IN, WEIGHTS_IN + 1>();
        }
        if constexpr (SIDES > 1) {
            Tiles::template load<PLACES_IN + 1>(two.tile(k), two.stride);
            Tiles::template multiply<SUMS + 2, PLACES_IN + 1, WEIGHTS_IN>();
        }
        if constexpr (SIDES > 1 && VECTORS > 1) Tiles::template multiply<SUMS + 3, PLACES_IN + 1, WEIGHTS_IN + 1>();
    }
    constexpr int WIDE = VECTORS * 16;
    Tiles::template store<SUMS>(sums, WIDE * 4);
    if constexpr (VECTORS > 1) Tiles::template store<SUMS + 1>(sums + 16, WIDE * 4);
    if constexpr (SIDES > 1) Tiles::template store<SUMS + 2>(sums + 16 * WIDE, WIDE * 4);
    if constexpr (SIDES > 1 && VECTORS > 1) Tiles::template store<SUMS + 3>(sums + 16 * WIDE + 16, WIDE * 4);
}

// Computes VECTORS * 16 outputs of a group from `block` on, at up to 32 places.
template <class Tiles, int VECTORS>
inline void block_in_tiles(const Step &step, uint8_t *arena, const Window &window, const Side *sides, const Spot *spots, int count,
                           int group, int block) {
    constexpr int WIDE = VECTORS * 16;
    alignas(64) int32_t sums[PLACES * WIDE];
    const int64_t of_output = window.tiles * window.bytes;
    const int8_t *weight = static_cast<const int8_t *>(step.weight) + (int64_t(group) * step.outputs + block) * of_output;
    if (count > 16) sums_of<Tiles, 2, VECTORS>(sides, window.tiles, weight, window.bytes * 16, sums);
    else sums_of<Tiles, 1, VECTORS>(sides, window.tiles, weight, window.bytes * 16, sums);
    const int each = step.result.channels / step.groups, first = group * each + block;
    if (step.each)
        for (int p = 0; p < count; p++) add_each<Sixteen, WIDE>(step, arena, spots[p], group, first, sums + p * WIDE);
    for (int p = 0; p < count; p += Sixteen::PLACES)
        finish_places<Sixteen, VECTORS>(step, sums + p * WIDE, first, each - block, arena, spots + p,
                                        count - p < Sixteen::PLACES ? count - p : Sixteen::PLACES);
}

constexpr int64_t HELD = 1 << 19;  // bytes of weights that stay in the processor's cache while all places are computed

// Computes outputs [first, last) of a group in rows [begin, end).
template <class Tiles>
inline void outputs_in_tiles(const Step &step, uint8_t *arena, int begin, int end, const Window &window, int group, int first, int last) {
    Walk walk(step, begin, end);
    Spot spots[PLACES];
    while (const int count = walk.take(spots, PLACES)) {
        Side sides[2];
        for (int s = 0; s * 16 < count; s++) sides[s] = side_of(step, arena, window, group, s, spots + s * 16, count - s * 16);
        for (int block = first; block < last; block += 32)
            if (last - block > 16) block_in_tiles<Tiles, 2>(step, arena, window, sides, spots, count, group, block);
            else block_in_tiles<Tiles, 1>(step, arena, window, sides, spots, count, group, block);
    }
}

// A step that does not use tiles.
template <int OPERATION> void without_tiles(const Step &step, uint8_t *arena, int begin, int end) {
    avx512popcnt_kernels.table[OPERATION](step, arena, begin, end);
}

// The unit is configured and released in each step, because other libraries use it, too.
template <class Tiles> void layer_in_tiles(const Step &step, uint8_t *arena, int begin, int end) {
    if (step.what != 2) return without_tiles<LAYER>(step, arena, begin, end);
    const Window window(step);
    Tiles::configure(Shapes(window.bytes));
    const int64_t fit = HELD / (window.tiles * window.bytes) / 32 * 32;
    const int chunk = fit < 32 ? 32 : fit < step.outputs ? int(fit) : step.outputs;
    for (int group = 0; group < step.groups; group++)
        for (int first = 0; first < step.outputs; first += chunk)
            outputs_in_tiles<Tiles>(step, arena, begin, end, window, group, first,
                                    step.outputs - first < chunk ? step.outputs : first + chunk);
    Tiles::release();
}

// Whether the unit's sums are right: 32 places times 32 outputs over 128 bytes, the largest products among them.
template <class Tiles> bool tiles_add_right() {
    static uint8_t x[2 * PLACES * 64];                 // (pieces of 64 bytes, places, bytes)
    static int8_t weight[2 * 2 * 1024];                // (pieces, vectors of outputs, fours, outputs, bytes)
    alignas(64) static int32_t sums[PLACES * 32];
    uint32_t drawn = 1;
    for (uint8_t &byte : x) byte = (drawn = drawn * 1664525 + 1013904223) >> 28 ? uint8_t(drawn >> 20) : 255;
    for (int8_t &byte : weight) byte = (drawn = drawn * 1664525 + 1013904223) >> 28 ? int8_t(drawn >> 20) : -128;
    const int32_t offsets[] = {0, PLACES * 64};
    const Side sides[] = {{x, 64, offsets}, {x + 1024, 64, offsets}};
    Tiles::configure(Shapes(64));
    sums_of<Tiles, 2, 2>(sides, 2, weight, 1024, sums);
    Tiles::release();
    for (int p = 0; p < PLACES; p++)
        for (int o = 0; o < 32; o++) {
            int32_t right = 0;
            for (int k = 0; k < 128; k++)
                right += x[(k / 64 * PLACES + p) * 64 + k % 64] * weight[((k / 64 * 2 + o / 16) * 16 + k % 64 / 4) * 64 + o % 16 * 4 + k % 4];
            if (sums[p * 32 + o] != right) return false;
        }
    return true;
}

// The peak rate of byte products on data in the first-level cache, measured as in peak.h.
template <class Tiles> double peak_in_tiles(int32_t bits, double seconds) {
    if (bits) return avx512popcnt_kernels.peak(bits, seconds);
    constexpr int COUNT = 8;
    alignas(64) static const int8_t weight[COUNT * 2 * 1024] = {1};
    alignas(64) static const uint8_t x[COUNT * 1024] = {1};
    alignas(64) int32_t sums[PLACES * 32];
    const Side sides[2] = {{x, 64, nullptr}, {x, 64, nullptr}};
    Tiles::configure(Shapes(64));
    const double rate = rate_of(PLACES * 32.0 * COUNT * 64, seconds, [&] {
        sums_of<Tiles, 2, 2>(sides, COUNT, weight, 1024, sums);
        asm volatile("" : : "r"(sums) : "memory");
    });
    Tiles::release();
    return rate;
}

template <class Tiles, int... O> constexpr Kernels with_tiles(const char *name, Indices<O...>) {
    Kernels found{name, Sixteen::WIDTH, BLOCK, Counts::WIDTH, Sixteen::DEPTHWISE_LANES, Sixteen::WHOLE, 1, peak_in_tiles<Tiles>, {without_tiles<O>...}};
    found.table[LAYER] = layer_in_tiles<Tiles>;
    return found;
}

template <class Tiles> constexpr Kernels with_tiles(const char *name) {
    return with_tiles<Tiles>(name, std::make_integer_sequence<int, std::extent<decltype(Kernels::table)>::value>());
}

}  // namespace
