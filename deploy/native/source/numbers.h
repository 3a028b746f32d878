// Operations on fp32 numbers, and the moves of numbers and codes.
#pragma once
#include "codes.h"
#include "functions.h"
#include <limits>

namespace {  // each instruction set has its own

// Each number of a row through `compute(index of its channel, number)`.
template <class Compute> inline void each_number(const Step &step, uint8_t *arena, int begin, int end, Compute compute) {
    for (int row = begin; row < end; row++)
        for (int column = 0; column < step.result.columns; column++) {
            const float *x = row_of<float>(step.source, arena, row) + int64_t(column) * step.source.pitch;
            float *y = row_of<float>(step.result, arena, row) + int64_t(column) * step.result.pitch;
            for (int c = 0; c < step.result.channels; c++) y[c] = compute(c, x[c]);
        }
}

inline void affine(const Step &step, uint8_t *arena, int begin, int end) {
    const float *scale = step.scale, *shift = step.shift;
    if (scale && shift)
        each_number(step, arena, begin, end, [=](int c, float x) { const float y = x * scale[c]; return y + shift[c]; });
    else if (scale)
        each_number(step, arena, begin, end, [=](int c, float x) { return x * scale[c]; });
    else if (shift)
        each_number(step, arena, begin, end, [=](int c, float x) { return x + shift[c]; });
    else
        each_number(step, arena, begin, end, [](int, float x) { return x; });
}

inline void function(const Step &step, uint8_t *arena, int begin, int end) {
    const int32_t name = step.what;
    if (name == RELU)
        each_number(step, arena, begin, end, [](int, float x) { return x > 0 ? x : 0; });
    else
        each_number(step, arena, begin, end, [&](int, float x) { return function_of(name, x, step.numbers); });
}

inline void slopes(const Step &step, uint8_t *arena, int begin, int end) {
    each_number(step, arena, begin, end, [&](int c, float x) { return x > 0 ? x : x * step.scale[c]; });
}

enum Combination : int32_t { ADD = 0, SUB, MUL, DIV, MAX, MIN };

// An axis of one number goes with any: it is read again and again.
template <class Compute> inline void each_pair(const Step &step, uint8_t *arena, int begin, int end, Compute compute) {
    const Value &a = step.source, &b = step.other, &out = step.result;
    const int a_step = a.channels > 1, b_step = b.channels > 1;
    for (int row = begin; row < end; row++)
        for (int column = 0; column < out.columns; column++) {
            const float *x = row_of<float>(a, arena, a.rows > 1 ? row : 0) + int64_t(a.columns > 1 ? column : 0) * a.pitch;
            const float *z = row_of<float>(b, arena, b.rows > 1 ? row : 0) + int64_t(b.columns > 1 ? column : 0) * b.pitch;
            float *y = row_of<float>(out, arena, row) + int64_t(column) * out.pitch;
            if (a_step && b_step)
                for (int c = 0; c < out.channels; c++) y[c] = compute(x[c], z[c]);
            else
                for (int c = 0; c < out.channels; c++) y[c] = compute(x[c * a_step], z[c * b_step]);
        }
}

inline void combine(const Step &step, uint8_t *arena, int begin, int end) {
    switch (step.what) {
        case ADD: each_pair(step, arena, begin, end, [](float a, float b) { return a + b; }); break;
        case SUB: each_pair(step, arena, begin, end, [](float a, float b) { return a - b; }); break;
        case MUL: each_pair(step, arena, begin, end, [](float a, float b) { return a * b; }); break;
        case DIV: each_pair(step, arena, begin, end, [](float a, float b) { return a / b; }); break;
        case MAX: each_pair(step, arena, begin, end, [](float a, float b) { return a > b ? a : b; }); break;
        default: each_pair(step, arena, begin, end, [](float a, float b) { return a < b ? a : b; });
    }
}

template <class T> inline void quantize_to(const Step &step, uint8_t *arena, int begin, int end) {
    for (int row = begin; row < end; row++)
        for (int column = 0; column < step.result.columns; column++) {
            const float *x = row_of<float>(step.source, arena, row) + int64_t(column) * step.source.pitch;
            T *y = row_of<T>(step.result, arena, row) + int64_t(column) * step.result.pitch;
            const int32_t zero = step.result.zero;
            if (step.signs)
                for (int c = 0; c < step.result.channels; c++) y[c] = stored<T>(sign_of(step, x[c]), zero);
            else
                for (int c = 0; c < step.result.channels; c++) y[c] = stored<T>(code_of(step, x[c]), zero);
        }
}

inline void quantize_bits(const Step &step, uint8_t *arena, int begin, int end) {
    const int words = (step.result.channels + 63) / 64;
    for (int row = begin; row < end; row++)
        for (int column = 0; column < step.result.columns; column++) {
            const float *x = row_of<float>(step.source, arena, row) + int64_t(column) * step.source.pitch;
            uint64_t *y = row_of<uint64_t>(step.result, arena, row) + int64_t(column) * step.result.pitch;
            for (int word = 0; word < step.result.pitch; word++) y[word] = 0;
            for (int c = 0; c < step.result.channels; c++) {
                const float sign = sign_of(step, x[c]);
                y[c / 64] |= uint64_t(sign > 0) << (c % 64);
                if (step.edge >= 0) y[words + c / 64] |= uint64_t(sign != 0) << (c % 64);
            }
        }
}

inline void quantize(const Step &step, uint8_t *arena, int begin, int end) {
    if (step.result.kind == BYTE) quantize_to<uint8_t>(step, arena, begin, end);
    else if (step.result.kind == SHORT) quantize_to<int16_t>(step, arena, begin, end);
    else quantize_bits(step, arena, begin, end);
    border(step.result, arena, begin, end);
}

template <class T> inline void decode_of(const Step &step, uint8_t *arena, int begin, int end) {
    const int32_t zero = step.source.kind == BYTE ? step.source.zero : 0;
    const float scale = step.numbers[0];
    for (int row = begin; row < end; row++)
        for (int column = 0; column < step.result.columns; column++) {
            const T *x = row_of<T>(step.source, arena, row) + int64_t(column) * step.source.pitch;
            float *y = row_of<float>(step.result, arena, row) + int64_t(column) * step.result.pitch;
            for (int c = 0; c < step.result.channels; c++) y[c] = float(int32_t(x[c]) - zero) * scale;
        }
}

inline void decode(const Step &step, uint8_t *arena, int begin, int end) {
    if (step.source.kind == BYTE) decode_of<uint8_t>(step, arena, begin, end);
    else decode_of<int16_t>(step, arena, begin, end);
}

template <class T> inline void max_of(const Step &step, uint8_t *arena, int begin, int end) {
    const Value &in = step.source, &out = step.result;
    const int channels = out.channels;
    for (int row = begin; row < end; row++)
        for (int column = 0; column < out.columns; column++) {
            T *__restrict y = row_of<T>(out, arena, row) + int64_t(column) * out.pitch;
            bool first = true;
            for (int i = 0; i < step.kernel[0]; i++) {
                const int at = row * step.stride[0] - step.padding[0] + i * step.dilation[0];
                if (at < 0 || at >= in.rows) continue;
                for (int j = 0; j < step.kernel[1]; j++) {
                    const int place = column * step.stride[1] - step.padding[1] + j * step.dilation[1];
                    if (place < 0 || place >= in.columns) continue;
                    const T *__restrict x = row_of<T>(in, arena, at) + int64_t(place) * in.pitch;
                    if (first)
                        for (int c = 0; c < channels; c++) y[c] = x[c];
                    else
                        for (int c = 0; c < channels; c++) y[c] = y[c] > x[c] ? y[c] : x[c];
                    first = false;
                }
            }
            if (first)  // a window of padding alone
                for (int c = 0; c < channels; c++)
                    y[c] = std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest();
        }
}

inline void max_pool(const Step &step, uint8_t *arena, int begin, int end) {
    if (step.source.kind == FLOAT) max_of<float>(step, arena, begin, end);
    else if (step.source.kind == BYTE) max_of<uint8_t>(step, arena, begin, end);
    else max_of<int16_t>(step, arena, begin, end);
    border(step.result, arena, begin, end);
}

// Sums in fp64, row by row, over the count of each window.
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

// Windows that begin and end where `spans` says. what: 0 means, 1 the largest number, 2 sums, 3 the smallest.
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

// Shares along the channels of each place: exp(x - max) over their sum, in fp64.
inline void softmax(const Step &step, uint8_t *arena, int begin, int end) {
    for (int row = begin; row < end; row++)
        for (int column = 0; column < step.result.columns; column++) {
            const float *x = row_of<float>(step.source, arena, row) + int64_t(column) * step.source.pitch;
            float *y = row_of<float>(step.result, arena, row) + int64_t(column) * step.result.pitch;
            float most = x[0];
            for (int c = 1; c < step.result.channels; c++) most = x[c] > most ? x[c] : most;
            double total = 0;
            for (int c = 0; c < step.result.channels; c++) total += exp_of(double(x[c] - most));
            for (int c = 0; c < step.result.channels; c++) y[c] = float(exp_of(double(x[c] - most)) / total);
        }
}

template <class T> inline void move_of(const Step &step, uint8_t *arena) {
    const T *from = reinterpret_cast<const T *>(arena + step.source.at);
    T *to = reinterpret_cast<T *>(arena + step.result.at);
    const T fill = T(step.numbers[0]);
    for (int64_t i = 0; i < step.count; i++) {
        const Run &run = step.runs[i];
        if (run.from >= 0) std::memcpy(to + run.to, from + run.from, sizeof(T) * run.count);
        else
            for (int64_t k = 0; k < run.count; k++) to[run.to + k] = fill;
    }
}

inline void move(const Step &step, uint8_t *arena, int begin, int) {
    if (begin != 0) return;
    if (step.result.kind == FLOAT) move_of<float>(step, arena);
    else if (step.result.kind == BYTE) move_of<uint8_t>(step, arena);
    else if (step.result.kind == SHORT) move_of<int16_t>(step, arena);
    else move_of<uint64_t>(step, arena);
    if (step.numbers[1] == 0) border(step.result, arena, 0, step.result.rows);  // the last of several moves
}

// A layer whose input or weight is no code: sums in fp64, rounded once. Weights are (group, taps and inputs, outputs) doubles.
inline void wide(const Step &step, uint8_t *arena, int begin, int end) {
    const Value &in = step.source, &out = step.result;
    const int each = out.channels / step.groups, inputs = in.channels / step.groups;
    const double *all = static_cast<const double *>(step.weight);
    const int64_t group_size = int64_t(step.kernel[0]) * step.kernel[1] * inputs * each;
    for (int row = begin; row < end; row++)
        for (int column = 0; column < out.columns; column++) {
            float *y = row_of<float>(out, arena, row) + int64_t(column) * out.pitch;
            for (int group = 0; group < step.groups; group++)
                for (int first = 0; first < each; first += 32) {
                    const int count = each - first < 32 ? each - first : 32;
                    double total[32] = {0};
                    for (int i = 0; i < step.kernel[0]; i++) {
                        const int at = row * step.stride[0] - step.padding[0] + i * step.dilation[0];
                        if (at < 0 || at >= in.rows) continue;
                        for (int j = 0; j < step.kernel[1]; j++) {
                            const int place = column * step.stride[1] - step.padding[1] + j * step.dilation[1];
                            if (place < 0 || place >= in.columns) continue;
                            const int64_t skip = int64_t(place) * in.pitch + group * inputs;
                            const double *w = all + group * group_size + int64_t(i * step.kernel[1] + j) * inputs * each + first;
                            for (int k = 0; k < inputs; k++) {
                                double x;
                                if (in.kind == FLOAT) x = row_of<float>(in, arena, at)[skip + k];
                                else if (in.kind == BYTE) x = row_of<uint8_t>(in, arena, at)[skip + k] - in.zero;
                                else x = row_of<int16_t>(in, arena, at)[skip + k];
                                for (int o = 0; o < count; o++) total[o] += x * w[int64_t(k) * each + o];
                            }
                        }
                    }
                    const int from = group * each + first;
                    for (int o = 0; o < count; o++) {
                        float z = float(total[o]);
                        if (step.scale) z = z * step.scale[from + o];
                        if (step.shift) z = z + step.shift[from + o];
                        y[from + o] = z;
                    }
                }
        }
}

}  // namespace
