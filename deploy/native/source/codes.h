// From sums to what a layer gives, and from numbers to codes: each step one fp32 operation, in the order of the reference.
#pragma once
#include "value.h"

#define ALWAYS inline __attribute__((always_inline))

namespace {  // each instruction set has its own

// Rounds half to even what lies within +-2^22, without a library call.
inline float rounded(float x) {
    const float magic = 12582912.0f;
    return (x + magic) - magic;
}

// The code of a number. Clamping before rounding gives the same: the ends are whole numbers.
inline float code_of(const Step &step, float x) {
    float y = x * step.inverse;
    y = y > step.low ? y : step.low;
    y = y < step.high ? y : step.high;
    return rounded(y);
}

inline float sign_of(const Step &step, float x) {
    if (step.edge < 0) return x >= 0 ? 1.0f : -1.0f;
    return float(x > step.edge) - float(x < -step.edge);
}

template <class T> inline T stored(float code, int32_t zero);
template <> inline float stored<float>(float code, int32_t) { return code; }
template <> inline uint8_t stored<uint8_t>(float code, int32_t zero) { return uint8_t(int32_t(code) + zero); }
template <> inline int16_t stored<int16_t>(float code, int32_t) { return int16_t(int32_t(code)); }

enum After : int { NUMBERS = 0, RECTIFIED, CODES, SIGN_CODES };

// What sums of channels from `first` on become at one place. COUNT: how many, 0: as many as `count` says.
template <class T, int COUNT, bool SCALED, bool SHIFTED, int AFTER>
ALWAYS void finish_as(const Step &step, const int32_t *sums, int first, int count, T *to) {
    const int32_t zero = step.result.zero, *bias = step.bias + first;
    const float *scale = step.scale + first, *shift = step.shift + first;
    to += first;
    for (int i = 0; i < (COUNT ? COUNT : count); i++) {
        float y = float(int32_t(uint32_t(sums[i]) + uint32_t(bias[i])));
        if (SCALED) y = y * scale[i];
        if (SHIFTED) y = y + shift[i];
        if (AFTER == RECTIFIED) y = y > 0 ? y : 0;
        if (AFTER == CODES) y = code_of(step, y);
        if (AFTER == SIGN_CODES) y = sign_of(step, y);
        to[i] = stored<T>(y, zero);
    }
}

template <class T, int COUNT, int AFTER>
ALWAYS void finish_after(const Step &step, const int32_t *sums, int first, int count, T *to) {
    if (step.scale && step.shift) finish_as<T, COUNT, true, true, AFTER>(step, sums, first, count, to);
    else if (step.scale) finish_as<T, COUNT, true, false, AFTER>(step, sums, first, count, to);
    else if (step.shift) finish_as<T, COUNT, false, true, AFTER>(step, sums, first, count, to);
    else finish_as<T, COUNT, false, false, AFTER>(step, sums, first, count, to);
}

template <class T, int COUNT> inline void finish(const Step &step, const int32_t *sums, int first, int count, T *to) {
    if (step.coded) {
        if (step.signs) finish_after<T, COUNT, SIGN_CODES>(step, sums, first, count, to);
        else finish_after<T, COUNT, CODES>(step, sums, first, count, to);
    } else if (step.relu) finish_after<T, COUNT, RECTIFIED>(step, sums, first, count, to);
    else finish_after<T, COUNT, NUMBERS>(step, sums, first, count, to);
}

// Bits of channels from `first` on, of which there are at most 64; the words were 0 before.
inline void set_bits(uint64_t *to, int first, int count, uint64_t bits) {
    to[first / 64] |= bits << (first % 64);
    if (first % 64 + count > 64) to[first / 64 + 1] |= bits >> (64 - first % 64);
}

// The signs of sums, one bit each.
inline void finish_bits(const Step &step, const int32_t *sums, int first, int count, uint64_t *to) {
    uint64_t positive = 0, nonzero = 0;
    const bool whole = !step.scale && !step.shift && step.edge < 0;  // the sign of a sum is that of its number
    for (int i = 0; i < count; i++) {
        const int32_t sum = int32_t(uint32_t(sums[i]) + uint32_t(step.bias[first + i]));
        if (whole) {
            positive |= uint64_t(sum >= 0) << i;
            continue;
        }
        float y = float(sum);
        if (step.scale) y = y * step.scale[first + i];
        if (step.shift) y = y + step.shift[first + i];
        const float sign = sign_of(step, y);
        positive |= uint64_t(sign > 0) << i;
        nonzero |= uint64_t(sign != 0) << i;
    }
    set_bits(to, first, count, positive);
    if (step.edge >= 0) set_bits(to + (step.result.channels + 63) / 64, first, count, nonzero);
}

// The same, whatever the result holds.
template <int COUNT>
inline void finish_any(const Step &step, const int32_t *sums, int first, int count, uint8_t *arena, int row, int column) {
    const Value &v = step.result;
    const int64_t at = int64_t(column) * v.pitch;
    if (v.kind == FLOAT) finish<float, COUNT>(step, sums, first, count, row_of<float>(v, arena, row) + at);
    else if (v.kind == BYTE) finish<uint8_t, COUNT>(step, sums, first, count, row_of<uint8_t>(v, arena, row) + at);
    else if (v.kind == BITS) finish_bits(step, sums, first, count, row_of<uint64_t>(v, arena, row) + at);
    else finish<int16_t, COUNT>(step, sums, first, count, row_of<int16_t>(v, arena, row) + at);
}

}  // namespace
