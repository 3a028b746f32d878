// Totals of windows, which complete the sums of weights beyond int8.
#pragma once
#include "codes.h"
#ifdef __AVX512BW__
#include <immintrin.h>
#endif

namespace {  // each instruction set has its own

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

}  // namespace
