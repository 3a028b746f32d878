// Pools of numbers, of codes and of signs.
#pragma once
#include "codes.h"
#include <limits>

namespace {  // each instruction set has its own

// The taps of a window inside the source along one axis: [begin, end).
struct Taps {
    int first, begin, end;
    Taps(const Step &step, int axis, int at, int size) : first(at * step.stride[axis] - step.padding[axis]) {
        const int dilation = step.dilation[axis];
        begin = first < 0 ? (-first + dilation - 1) / dilation : 0;
        end = first < size ? (size - first + dilation - 1) / dilation : 0;
        if (end > step.kernel[axis]) end = step.kernel[axis];
    }
};

// The largest numbers of a window, PART channels at once in vectors; returns the first channel that is left.
template <class T, int PART>
ALWAYS int largest(const Step &step, const T *from, const Taps &rows, const Taps &columns, T *to, int c) {
    typedef T Part __attribute__((vector_size(PART * sizeof(T))));
    const int64_t line = row_pitch<T>(step.source), next = int64_t(step.dilation[1]) * step.source.pitch;
    for (; c + PART <= step.result.channels; c += PART) {
        Part most, x;
        bool fresh = true;
        for (int i = rows.begin; i < rows.end; i++) {
            const T *at = from + i * step.dilation[0] * line + columns.begin * next + c;
            for (int j = columns.begin; j < columns.end; j++, at += next) {
                std::memcpy(&x, at, sizeof x);
                most = fresh ? x : x > most ? x : most;
                fresh = false;
            }
        }
        std::memcpy(to + c, &most, sizeof most);
    }
    return c;
}

template <class T> inline void max_of(const Step &step, uint8_t *arena, int begin, int end) {
    const Value &in = step.source, &out = step.result;
    using Limits = std::numeric_limits<T>;
    for (int row = begin; row < end; row++) {
        const Taps rows(step, 0, row, in.rows);
        for (int column = 0; column < out.columns; column++) {
            const Taps columns(step, 1, column, in.columns);
            T *to = row_of<T>(out, arena, row) + int64_t(column) * out.pitch;
            if (rows.begin >= rows.end || columns.begin >= columns.end) {  // a window of padding alone
                for (int c = 0; c < out.channels; c++) to[c] = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
                continue;
            }
            const T *from = row_of<T>(in, arena, rows.first) + int64_t(columns.first) * in.pitch;
            int c = largest<T, 64 / sizeof(T)>(step, from, rows, columns, to, 0);
            c = largest<T, 16 / sizeof(T)>(step, from, rows, columns, to, c);
            largest<T, 1>(step, from, rows, columns, to, c);
        }
    }
}

// The largest signs: positive if any is positive, negative if all are negative.
inline void max_bits(const Step &step, uint8_t *arena, int begin, int end) {
    const Value &in = step.source, &out = step.result;
    const int words = words_of(out.channels);
    const bool has_zero = out.pitch > words;
    for (int row = begin; row < end; row++)
        for (int column = 0; column < out.columns; column++) {
            const Taps rows(step, 0, row, in.rows), columns(step, 1, column, in.columns);
            uint32_t *to = row_of<uint32_t>(out, arena, row) + int64_t(column) * out.pitch;
            for (int word = 0; word < words; word++) {
                const int left = out.channels - word * WORD;
                uint32_t positive = 0, negative = left < WORD ? (uint32_t(1) << left) - 1 : ~uint32_t(0);
                for (int i = rows.begin; i < rows.end; i++)
                    for (int j = columns.begin; j < columns.end; j++) {
                        const uint32_t *x = row_of<uint32_t>(in, arena, rows.first + i * step.dilation[0])
                            + int64_t(columns.first + j * step.dilation[1]) * in.pitch;
                        positive |= x[word];
                        if (has_zero) negative &= x[words + word] & ~x[word];
                    }
                to[word] = positive;
                if (has_zero) to[words + word] = positive | negative;
            }
        }
}

inline void max_pool(const Step &step, uint8_t *arena, int begin, int end) {
    if (step.source.kind == BITS) max_bits(step, arena, begin, end);
    else if (step.source.kind == FLOAT) max_of<float>(step, arena, begin, end);
    else if (step.source.kind == BYTE) max_of<uint8_t>(step, arena, begin, end);
    else max_of<int16_t>(step, arena, begin, end);
}

// Sums in fp64, row by row, divided by each window's count.
inline void average_pool(const Step &step, uint8_t *arena, int begin, int end) {
    const Value &in = step.source, &out = step.result;
    for (int row = begin; row < end; row++)
        for (int column = 0; column < out.columns; column++) {
            float *y = row_of<float>(out, arena, row) + int64_t(column) * out.pitch;
            const double divisor = step.divisors[int64_t(row) * out.columns + column];
            for (int first = 0; first < out.channels; first += 64) {
                const int count = out.channels - first < 64 ? out.channels - first : 64;
                double total[64] = {0};
                for (int i = 0; i < step.kernel[0]; i++) {
                    const int at = row * step.stride[0] - step.padding[0] + i;
                    if (at < 0 || at >= in.rows) continue;
                    for (int j = 0; j < step.kernel[1]; j++) {
                        const int place = column * step.stride[1] - step.padding[1] + j;
                        if (place < 0 || place >= in.columns) continue;
                        const float *x = row_of<float>(in, arena, at) + int64_t(place) * in.pitch + first;
                        for (int c = 0; c < count; c++) total[c] += double(x[c]);
                    }
                }
                for (int c = 0; c < count; c++) y[first + c] = float(total[c] / divisor);
            }
        }
}

// Windows with starts and ends in `spans`. what: 0 mean, 1 maximum, 2 sum, 3 minimum.
inline void span_pool(const Step &step, uint8_t *arena, int begin, int end) {
    const Value &in = step.source, &out = step.result;
    const int32_t *columns = step.spans + 2 * out.rows;
    for (int row = begin; row < end; row++)
        for (int column = 0; column < out.columns; column++) {
            float *y = row_of<float>(out, arena, row) + int64_t(column) * out.pitch;
            const int top = step.spans[2 * row], bottom = step.spans[2 * row + 1];
            const int left = columns[2 * column], right = columns[2 * column + 1];
            for (int first = 0; first < out.channels; first += 64) {
                const int count = out.channels - first < 64 ? out.channels - first : 64;
                double total[64];
                bool fresh = true;
                for (int i = top; i < bottom; i++)
                    for (int j = left; j < right; j++) {
                        const float *x = row_of<float>(in, arena, i) + int64_t(j) * in.pitch + first;
                        for (int c = 0; c < count; c++) {
                            const double z = x[c];
                            if (fresh) total[c] = z;
                            else if (step.what == 1) total[c] = total[c] > z ? total[c] : z;
                            else if (step.what == 3) total[c] = total[c] < z ? total[c] : z;
                            else total[c] += z;
                        }
                        fresh = false;
                    }
                const double many = double(bottom - top) * (right - left);
                for (int c = 0; c < count; c++) y[first + c] = float(step.what == 0 ? total[c] / many : total[c]);
            }
        }
}

}  // namespace
