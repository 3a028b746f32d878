// Layers whose input or weight is not in codes: sums in fp64, rounded once. A product of two fp32 numbers is exact in fp64.
// Weights: for each group, blocks of 4, 2 or 1 vectors of outputs, (taps, inputs, outputs of the block) fp32; depthwise: (taps, channels).
#pragma once
#include "functions.h"
#include "layers.h"
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {  // each instruction set has its own

// The product is exact, so a fused multiply-add gives the same result.
ALWAYS Doubles added(Doubles total, Doubles x, Doubles w) {
#ifdef __AVX512F__
    return _mm512_fmadd_pd(x, w, total);
#else
    return total + x * w;
#endif
}

// A vector with the same number in all elements.
ALWAYS Doubles all_of(double wide) {
#ifdef __AVX512F__
    return _mm512_set1_pd(wide);
#else
    return Doubles{} + wide;
#endif
}

// `zero` is the byte of the code 0.
template <class T> ALWAYS Doubles all_of(T number, double zero) { return all_of(sizeof(T) == 4 ? double(number) : double(number) - zero); }

ALWAYS Doubles doubles_at(const float *at) {
#ifdef __AVX512F__
    return _mm512_cvtps_pd(_mm256_loadu_ps(at));
#else
    Floats found;
    std::memcpy(&found, at, sizeof found);
    return __builtin_convertvector(found, Doubles);
#endif
}

// Turns sums into results of `count` channels from `first` on.
inline void finish_wide(const Step &step, const double *sums, int first, int count, float *to) {
    for (int o = 0; o < count; o++) {
        float y = float(sums[o]);
        if (step.scale) y = y * step.scale[first + o];
        if (step.shift) y = y + step.shift[first + o];
        to[first + o] = y;
    }
}

template <int... V> ALWAYS void add_number(Doubles *total, Doubles number, const Doubles *w, Indices<V...>) {
    ((total[V] = added(total[V], number, w[V])), ...);
}

template <class T, int VECTORS, int... P, int... V>
ALWAYS void add_wide(Doubles *total, const T *const *from, int k, const float *weight, double zero, Indices<P...>, Indices<V...> all) {
    const Doubles w[] = {doubles_at(weight + V * EIGHT)...};
    (add_number(total + P * VECTORS, all_of(from[P][k], zero), w, all), ...);
}

// The sums of several places.
template <class T, int PLACES, int VECTORS>
ALWAYS void wide_places(const Step &step, uint8_t *arena, const Spot *spots, int count, int group, int block, const float *weight) {
    const int inputs = step.source.channels / step.groups, each = step.result.channels / step.groups;
    const double zero = step.source.zero;
    Doubles total[PLACES * VECTORS];
    for (Doubles &each : total) each = Doubles{};
    for (int i = 0; i < step.kernel[0]; i++)
        for (int j = 0; j < step.kernel[1]; j++) {
            const T *from[PLACES];
            for (int p = 0; p < PLACES; p++)
                from[p] = window_at<T>(step, arena, spots[p]) + tap(step, i, j) + group * inputs;
            for (int k = 0; k < inputs; k++, weight += VECTORS * EIGHT)
                add_wide<T, VECTORS>(total, from, k, weight, zero, std::make_integer_sequence<int, PLACES>(),
                                     std::make_integer_sequence<int, VECTORS>());
        }
    alignas(64) double sums[VECTORS * EIGHT];
    const int left = each - block;
    for (int p = 0; p < count; p++) {
        std::memcpy(sums, total + p * VECTORS, sizeof sums);
        finish_wide(step, sums, group * each + block, left < VECTORS * EIGHT ? left : VECTORS * EIGHT, result_at<float>(step, arena, spots[p]));
    }
}

template <class Lanes, class T, int VECTORS>
inline const float *wide_block(const Step &step, uint8_t *arena, int begin, int end, int group, int block, const float *weight) {
    constexpr int PLACES = VECTORS == 4 ? Lanes::WIDE_PLACES : 2 * Lanes::WIDE_PLACES;  // fewer vectors leave registers for more places
    each_tile<PLACES>(step, begin, end, [&](auto most, const Spot *spots, int count) {
        wide_places<T, decltype(most)::value, VECTORS>(step, arena, spots, count, group, block, weight);
    });
    return weight + int64_t(step.kernel[0]) * step.kernel[1] * (step.source.channels / step.groups) * VECTORS * EIGHT;
}

template <class T> inline void wide_depthwise(const Step &step, uint8_t *arena, int begin, int end) {
    const float *all = static_cast<const float *>(step.weight);
    const double zero = step.source.zero;
    const int channels = step.result.channels;
    each_tile<1>(step, begin, end, [&](auto, const Spot *spots, int) {
        for (int first = 0; first < channels; first += 64) {
            const int count = channels - first < 64 ? channels - first : 64;
            double total[64] = {0};
            for (int i = 0; i < step.kernel[0]; i++)
                for (int j = 0; j < step.kernel[1]; j++) {
                    const T *x = window_at<T>(step, arena, *spots) + tap(step, i, j) + first;
                    const float *w = all + int64_t(i * step.kernel[1] + j) * channels + first;
                    for (int c = 0; c < count; c++) total[c] += (double(x[c]) - zero) * double(w[c]);
                }
            finish_wide(step, total, first, count, result_at<float>(step, arena, *spots));
        }
    });
}

template <class Lanes, class T> inline void wide_of(const Step &step, uint8_t *arena, int begin, int end) {
    const float *weight = static_cast<const float *>(step.weight);
    if (step.what) return wide_depthwise<T>(step, arena, begin, end);
    const int each = step.result.channels / step.groups;
    for (int group = 0; group < step.groups; group++)
        for (int block = 0, vectors = (each + EIGHT - 1) / EIGHT; vectors > 0;) {
            const int taken = vectors >= 4 ? 4 : vectors >= 2 ? 2 : 1;
            if (taken == 4) weight = wide_block<Lanes, T, 4>(step, arena, begin, end, group, block, weight);
            else if (taken == 2) weight = wide_block<Lanes, T, 2>(step, arena, begin, end, group, block, weight);
            else weight = wide_block<Lanes, T, 1>(step, arena, begin, end, group, block, weight);
            block += taken * EIGHT;
            vectors -= taken;
        }
}

// what: 1 for a depthwise layer.
template <class Lanes> void wide(const Step &step, uint8_t *arena, int begin, int end) {
    if (step.source.kind == FLOAT) wide_of<Lanes, float>(step, arena, begin, end);
    else if (step.source.kind == BYTE) wide_of<Lanes, uint8_t>(step, arena, begin, end);
    else wide_of<Lanes, int16_t>(step, arena, begin, end);
}

}  // namespace
