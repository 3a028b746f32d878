// Layers with one filter for each channel.
// Weights: (taps, channels) shorts; or, if Lanes sums fours of taps: (parts of APART channels, fours of taps, 4 vectors, bytes).
#pragma once
#include "layers.h"

namespace {  // each instruction set has its own

// All channels of a place at once, one tap at a time.
template <class Lanes, class T> inline void depthwise_of(const Step &step, uint8_t *arena, int begin, int end) {
    const int channels = step.result.channels;
    const int16_t *weight = static_cast<const int16_t *>(step.weight);
    each_tile<1>(step, begin, end, [&](auto, const Spot *spots, int) {
        for (int first = 0; first < channels; first += 64) {
            const int count = channels - first < 64 ? channels - first : 64;
            alignas(64) int32_t sums[64] = {0};
            for (int i = 0; i < step.kernel[0]; i++)
                for (int j = 0; j < step.kernel[1]; j++) {
                    const T *x = window_at<T>(step, arena, *spots) + tap(step, i, j) + first;
                    const int16_t *w = weight + int64_t(i * step.kernel[1] + j) * channels + first;
                    for (int c = 0; c < count; c++) sums[c] = int32_t(uint32_t(sums[c]) + uint32_t(int32_t(x[c]) * w[c]));
                }
            finish_any<Lanes, 0>(step, sums, first, count, arena, *spots);
        }
    });
}

// Four taps at a time: their bytes are interleaved, so that one instruction sums four products of a channel.
template <class Lanes> inline void depthwise_fours(const Step &step, uint8_t *arena, int begin, int end) {
    constexpr int APART = Lanes::APART;
    const int8_t *weight = static_cast<const int8_t *>(step.weight);
    for (int first = 0; first < step.result.channels; first += APART, weight += step.count * APART) {
        const int left = step.result.channels - first, count = left < APART ? left : APART;
        const typename Lanes::ApartCoder coder(step, first, count);
        each_tile<1>(step, begin, end, [&](auto, const Spot *spots, int) {
            const uint8_t *from = window_at<uint8_t>(step, arena, *spots) + first;
            typename Lanes::Apart sums;
            const int8_t *w = weight;
            for (int64_t k = 0; k < step.count; k += 4, w += 4 * APART) sums.add(from, step.offsets + k, w);
            if (coder.codes) return coder.store(sums, result_at<uint8_t>(step, arena, *spots) + first);
            alignas(64) int32_t natural[APART];
            sums.store(natural);
            finish_any<Lanes, 0>(step, natural, first, count, arena, *spots);
        });
    }
}

// what: 1 if taps come in fours.
template <class Lanes> inline void depthwise(const Step &step, uint8_t *arena, int begin, int end) {
    if constexpr (Lanes::APART > 0)
        if (step.what) return depthwise_fours<Lanes>(step, arena, begin, end);
    if (step.source.kind == BYTE) depthwise_of<Lanes, uint8_t>(step, arena, begin, end);
    else depthwise_of<Lanes, int16_t>(step, arena, begin, end);
}

}  // namespace
