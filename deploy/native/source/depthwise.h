// Layers with one filter for each channel.
// Weights: (taps, channels) shorts; or, if Lanes sums fours of taps: (parts, fours of taps, planes, 4 vectors, bytes), where a part has
// DEPTHWISE_LANES lanes.
// With two or three planes the weight is the sum of as many bytes.
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

// Four taps at a time: their bytes are interleaved, so that one instruction sums four products of a lane.
// The numbers of a line are contiguous: of a place, or of a row whose places have no gap between their windows. Its lanes are
// computed DEPTHWISE_LANES at a time. Channels repeat along a row, so the weights of a part serve every `parts`-th block of lanes.
template <class Lanes, int PLANES, class Finish> inline void each_sum(const Step &step, uint8_t *arena, int begin, int end, int part, const int8_t *weight, const Finish &finish) {
    constexpr int AT_ONCE = Lanes::DEPTHWISE_LANES;
    const int lanes = step.line * step.result.channels;
    for (int row = begin; row < end; row++) {
        Spot spot = row_begin(step, row);
        for (; spot.column < step.result.columns; spot.column += step.line) {
            const uint8_t *from = window_at<uint8_t>(step, arena, spot);
            for (int at = part * AT_ONCE; at < lanes; at += step.parts * AT_ONCE) {
                typename Lanes::DepthwiseSums sums;
                const int8_t *w = weight;
                for (int64_t k = 0; k < step.count; k += 4, w += 4 * PLANES * AT_ONCE)
                    sums.template add<PLANES>(from + at, step.offsets + k, w);
                finish(sums, spot, at, lanes - at < AT_ONCE ? lanes - at : AT_ONCE);
            }
            spot.from += int64_t(step.stride[1]) * step.source.pitch * step.line;
            spot.to += int64_t(step.result.pitch) * step.line;
        }
    }
}

template <class Lanes, int PLANES> inline void depthwise_lines(const Step &step, uint8_t *arena, int begin, int end) {
    constexpr int AT_ONCE = Lanes::DEPTHWISE_LANES;
    const int8_t *weight = static_cast<const int8_t *>(step.weight);
    for (int part = 0; part < step.parts; part++, weight += step.count * PLANES * AT_ONCE) {
        if (step.what == 1) {
            each_sum<Lanes, PLANES>(step, arena, begin, end, part, weight, [&](const auto &sums, const Spot &spot, int at, int count) {
                alignas(64) int32_t natural[AT_ONCE];
                sums.store(natural);
                finish_any<Lanes, 0>(step, natural, at, count, arena, spot);
            });
            continue;
        }
        const typename Lanes::DepthwiseFinish finish(step, part);
        if (step.coded)
            each_sum<Lanes, PLANES>(step, arena, begin, end, part, weight, [&](const auto &sums, const Spot &spot, int at, int count) {
                finish.store_codes(sums, result_at<uint8_t>(step, arena, spot) + at, count);
            });
        else
            each_sum<Lanes, PLANES>(step, arena, begin, end, part, weight, [&](const auto &sums, const Spot &spot, int at, int count) {
                finish.store_numbers(sums, result_at<float>(step, arena, spot) + at, count);
            });
    }
}

// what: 1 if taps come in fours; 2 if bias, scale and shift are then in the order of sums, see DepthwiseFinish.
template <class Lanes> inline void depthwise(const Step &step, uint8_t *arena, int begin, int end) {
    if constexpr (Lanes::DEPTHWISE_LANES > 0)
        if (step.what) {
            if (step.planes == 1) return depthwise_lines<Lanes, 1>(step, arena, begin, end);
            if (step.planes == 2) return depthwise_lines<Lanes, 2>(step, arena, begin, end);
            return depthwise_lines<Lanes, 3>(step, arena, begin, end);
        }
    if (step.source.kind == BYTE) depthwise_of<Lanes, uint8_t>(step, arena, begin, end);
    else depthwise_of<Lanes, int16_t>(step, arena, begin, end);
}

}  // namespace
