// Pools of numbers, of codes and of signs.
#pragma once
#include "codes.h"
#include <limits>
#include <vector>

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

// Words of signs: `positive`, and `nonzero` of grids with 0. All bits of nonzero are 1 on other grids, and none is stored.
struct Signed {
    uint32_t positive, nonzero;
    // The larger of two signs: positive if either is, negative if both are.
    ALWAYS void join(Signed x) {
        nonzero = positive | x.positive | (nonzero & x.nonzero);
        positive |= x.positive;
    }
};

template <bool HAS_ZERO> ALWAYS Signed signed_at(const uint32_t *at, int words) { return {at[0], HAS_ZERO ? at[words] : ~uint32_t(0)}; }
template <bool HAS_ZERO> ALWAYS void store_signed(Signed x, uint32_t *to, int words) {
    to[0] = x.positive;
    if (HAS_ZERO) to[words] = x.nonzero;
}

// The largest signs: first of each column, in whole lines, then of each window.
template <bool HAS_ZERO> void max_bits(const Step &step, uint8_t *arena, int begin, int end) {
    const Value &in = step.source, &out = step.result;
    const int words = words_of(out.channels), places = HAS_ZERO ? in.columns : 1, together = HAS_ZERO ? words : in.columns * words;
    thread_local std::vector<uint32_t> line;
    line.resize(size_t(in.columns) * in.pitch);
    const int64_t next = int64_t(step.dilation[1]) * in.pitch;
    for (int row = begin; row < end; row++) {
        const Taps rows(step, 0, row, in.rows);
        for (int i = rows.begin; i < rows.end; i++) {
            const uint32_t *x = row_of<uint32_t>(in, arena, rows.first + i * step.dilation[0]);
            if (i == rows.begin) {
                std::memcpy(line.data(), x, line.size() * sizeof(uint32_t));
                continue;
            }
            uint32_t *y = line.data();
            for (int place = 0; place < places; place++, x += in.pitch, y += in.pitch)
                for (int word = 0; word < together; word++) {
                    Signed both = signed_at<HAS_ZERO>(y + word, words);
                    both.join(signed_at<HAS_ZERO>(x + word, words));
                    store_signed<HAS_ZERO>(both, y + word, words);
                }
        }
        for (int column = 0; column < out.columns; column++) {
            const Taps columns(step, 1, column, in.columns);
            const int taps = rows.begin < rows.end ? columns.end - columns.begin : 0;
            const uint32_t *x = line.data() + int64_t(columns.first + columns.begin * step.dilation[1]) * in.pitch;
            uint32_t *to = row_of<uint32_t>(out, arena, row) + int64_t(column) * out.pitch;
            for (int word = 0; word < words; word++) {
                const int left = out.channels - word * WORD;
                Signed most{0, left < WORD ? (uint32_t(1) << left) - 1 : ~uint32_t(0)};
                for (int j = 0; j < taps; j++) most.join(signed_at<HAS_ZERO>(x + j * next + word, words));
                store_signed<HAS_ZERO>(most, to + word, words);
            }
        }
    }
}

inline void max_pool(const Step &step, uint8_t *arena, int begin, int end) {
    if (step.source.kind == BITS)
        step.source.pitch > words_of(step.source.channels) ? max_bits<true>(step, arena, begin, end) : max_bits<false>(step, arena, begin, end);
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
