// Operations on fp32 numbers, and conversion of numbers to codes and back. Moves: moves.h.
#pragma once
#include "codes.h"
#include "functions.h"

namespace {  // each instruction set has its own

// Applies `compute(row, column, channel, number)` to each number of the rows.
template <class Compute> inline void each_number(const Step &step, uint8_t *arena, int begin, int end, Compute compute) {
    for (int row = begin; row < end; row++)
        for (int column = 0; column < step.result.columns; column++) {
            const float *__restrict x = row_of<float>(step.source, arena, row) + int64_t(column) * step.source.pitch;
            float *__restrict y = row_of<float>(step.result, arena, row) + int64_t(column) * step.result.pitch;
            for (int c = 0; c < step.result.channels; c++) y[c] = compute(row, column, c, x[c]);
        }
}

// Calls act(x, y, count) on the numbers of each place of the rows, before and after. A contiguous row is one place, and so are rows
// without borders if `act` treats all numbers alike.
template <class X, class Y, class Act> inline void each_run(const Step &step, uint8_t *arena, int begin, int end, Act act, bool all_alike = true) {
    const int channels = step.result.channels;
    const bool whole = step.source.pitch == channels && step.result.pitch == channels;
    const int64_t all = int64_t(end - begin) * step.result.columns * channels;
    if (all_alike && whole && all < INT32_MAX && !(step.source.left | step.source.right | step.result.left | step.result.right))
        return act(row_of<X>(step.source, arena, begin), row_of<Y>(step.result, arena, begin), int(all));
    const int columns = whole ? 1 : step.result.columns, count = whole ? channels * step.result.columns : channels;
    for (int row = begin; row < end; row++)
        for (int column = 0; column < columns; column++)
            act(row_of<X>(step.source, arena, row) + int64_t(column) * step.source.pitch,
                row_of<Y>(step.result, arena, row) + int64_t(column) * step.result.pitch, count);
}

template <bool SCALED, bool SHIFTED>
inline void affine_as(const Step &step, uint8_t *arena, int begin, int end, const float *scale, const float *shift, int period) {
    each_run<float, float>(step, arena, begin, end, [=](const float *x, float *y, int count) {
        for (; count > 0; count -= period, x += period, y += period)
            for (int c = 0; c < (count < period ? count : period); c++) {
                float z = x[c];
                if (SCALED) z = z * scale[c];
                if (SHIFTED) z = z + shift[c];
                y[c] = z;
            }
    }, false);
}

// what: 0 if each row has a factor, 1 if each column has one.
inline void affine_of_places(const Step &step, uint8_t *arena, int begin, int end) {
    const float *scale = step.scale, *shift = step.shift;
    for (int row = begin; row < end; row++)
        for (int column = 0; column < step.result.columns; column++) {
            const float *__restrict x = row_of<float>(step.source, arena, row) + int64_t(column) * step.source.pitch;
            float *__restrict y = row_of<float>(step.result, arena, row) + int64_t(column) * step.result.pitch;
            const int at = step.what ? column : row;
            const float by = scale ? scale[at] : 1, plus = shift ? shift[at] : 0;
            const int channels = step.result.channels;
            if (scale && shift)
                for (int c = 0; c < channels; c++) y[c] = x[c] * by + plus;
            else if (scale)
                for (int c = 0; c < channels; c++) y[c] = x[c] * by;
            else
                for (int c = 0; c < channels; c++) y[c] = x[c] + plus;
        }
}

// The factors of few channels are repeated, so that vectors hold several places of a row.
inline void affine(const Step &step, uint8_t *arena, int begin, int end) {
    if (step.what < 2) return affine_of_places(step, arena, begin, end);
    constexpr int FEW = 16;
    const float *scale = step.scale, *shift = step.shift;
    float scales[FEW * FEW], shifts[FEW * FEW];
    int period = step.result.channels;
    if (period <= FEW) {
        for (int i = 0; i < period * FEW; i++) {
            scales[i] = scale ? scale[i % period] : 1;
            shifts[i] = shift ? shift[i % period] : 0;
        }
        scale = scale ? scales : nullptr, shift = shift ? shifts : nullptr, period *= FEW;
    }
    if (scale && shift) affine_as<true, true>(step, arena, begin, end, scale, shift, period);
    else if (scale) affine_as<true, false>(step, arena, begin, end, scale, shift, period);
    else if (shift) affine_as<false, true>(step, arena, begin, end, scale, shift, period);
    else affine_as<false, false>(step, arena, begin, end, scale, shift, period);
}

template <int NAME> inline void function_as(const Step &step, uint8_t *arena, int begin, int end) {
    const float settings[] = {step.numbers[0], step.numbers[1]};
    each_run<float, float>(step, arena, begin, end, [=](const float *__restrict x, float *__restrict y, int count) {
        functions_of<NAME>(x, y, count, settings);
    });
}

// One loop for each function: compilers vectorise most of them.
template <int... NAMES> inline void function_in(std::integer_sequence<int, NAMES...>, const Step &step, uint8_t *arena, int begin, int end) {
    ((step.what == NAMES ? function_as<NAMES>(step, arena, begin, end) : void()), ...);
}

inline void function(const Step &step, uint8_t *arena, int begin, int end) {
    function_in(std::make_integer_sequence<int, TANH + 1>(), step, arena, begin, end);
}

inline void slopes(const Step &step, uint8_t *arena, int begin, int end) {
    if (step.what == 2) each_number(step, arena, begin, end, [&](int, int, int c, float x) { return x > 0 ? x : x * step.scale[c]; });
    else each_number(step, arena, begin, end, [&](int row, int column, int, float x) { return x > 0 ? x : x * step.scale[step.what ? column : row]; });
}

enum Combination : int32_t { ADD = 0, SUB, MUL, DIV, MAX, MIN, POW, EQ, NE, GT, GE, LT, LE, KEEP };

// Applies `compute` to two values; an axis of length 1 broadcasts. spans: for each row of the result, that of the first value; then, that
// of the second; null if rows have one axis.
template <class Compute> inline void each_pair(const Step &step, uint8_t *arena, int begin, int end, Compute compute) {
    const Value &a = step.source, &b = step.other, &out = step.result;
    const int a_step = a.channels > 1, b_step = b.channels > 1;
    const int64_t numbers = int64_t(out.columns) * out.channels;
    auto row_in = [&](const Value &v, int which, int row) {
        return row_of<float>(v, arena, step.spans ? step.spans[which * out.rows + row] : v.rows > 1 ? row : 0);
    };
    auto whole = [&](const Value &v) { return v.columns == out.columns && v.channels == v.pitch && v.channels == out.channels; };
    if (whole(a) && whole(b) && whole(out)) {  // a contiguous row is computed as one place
        for (int row = begin; row < end; row++) {
            const float *__restrict x = row_in(a, 0, row), *__restrict z = row_in(b, 1, row);
            float *__restrict y = row_of<float>(out, arena, row);
            for (int64_t c = 0; c < numbers; c++) y[c] = compute(x[c], z[c]);
        }
        return;
    }
    for (int row = begin; row < end; row++)
        for (int column = 0; column < out.columns; column++) {
            const float *__restrict x = row_in(a, 0, row) + int64_t(a.columns > 1 ? column : 0) * a.pitch;
            const float *__restrict z = row_in(b, 1, row) + int64_t(b.columns > 1 ? column : 0) * b.pitch;
            float *__restrict y = row_of<float>(out, arena, row) + int64_t(column) * out.pitch;
            const int channels = out.channels;
            if (a_step == b_step)
                for (int c = 0; c < channels; c++) y[c] = compute(x[c], z[c]);
            else if (a_step) {
                const float other = *z;
                for (int c = 0; c < channels; c++) y[c] = compute(x[c], other);
            } else {
                const float one = *x;
                for (int c = 0; c < channels; c++) y[c] = compute(one, z[c]);
            }
        }
}

inline void combine(const Step &step, uint8_t *arena, int begin, int end) {
    switch (step.what) {
        case ADD: each_pair(step, arena, begin, end, [](float a, float b) { return a + b; }); break;
        case SUB: each_pair(step, arena, begin, end, [](float a, float b) { return a - b; }); break;
        case MUL: each_pair(step, arena, begin, end, [](float a, float b) { return a * b; }); break;
        case DIV: each_pair(step, arena, begin, end, [](float a, float b) { return a / b; }); break;
        case MAX: each_pair(step, arena, begin, end, [](float a, float b) { return a > b ? a : b; }); break;
        case MIN: each_pair(step, arena, begin, end, [](float a, float b) { return a < b ? a : b; }); break;
        case POW: each_pair(step, arena, begin, end, [](float a, float b) { return float(raised(a, b)); }); break;
        case EQ: each_pair(step, arena, begin, end, [](float a, float b) { return float(a == b); }); break;
        case NE: each_pair(step, arena, begin, end, [](float a, float b) { return float(a != b); }); break;
        case GT: each_pair(step, arena, begin, end, [](float a, float b) { return float(a > b); }); break;
        case GE: each_pair(step, arena, begin, end, [](float a, float b) { return float(a >= b); }); break;
        case LT: each_pair(step, arena, begin, end, [](float a, float b) { return float(a < b); }); break;
        case LE: each_pair(step, arena, begin, end, [](float a, float b) { return float(a <= b); }); break;
        default: each_pair(step, arena, begin, end, [](float a, float b) { return b != 0 ? a : 0; });
    }
}

template <class T> inline void quantize_to(const Step &step, uint8_t *arena, int begin, int end) {
    const Coding coding(step);
    const int32_t zero = step.result.zero;
    each_run<float, T>(step, arena, begin, end, [&](const float *__restrict x, T *__restrict y, int count) {
        if (step.signs)
            for (int c = 0; c < count; c++) y[c] = stored<T>(sign_of(step, x[c]), zero);
        else
            for (int c = 0; c < count; c++) y[c] = stored_code<T>(coding, x[c], zero);
    });
}

// A bit for each of `count` numbers: whether its sign is positive, and whether it is not 0, on the grid of `step`.
template <class Lanes> ALWAYS void signs_of_numbers(const Step &step, const float *x, int count, uint32_t &positive, uint32_t &nonzero) {
    int c = 0;
    positive = nonzero = 0;
    for (; c + Lanes::WIDTH <= count; c += Lanes::WIDTH) {
        if (step.edge < 0) {
            positive |= uint32_t(Lanes::not_negative(x + c)) << c;
            continue;
        }
        const uint32_t above = Lanes::above(x + c, step.edge);
        positive |= above << c;
        nonzero |= (above | Lanes::below(x + c, -step.edge)) << c;
    }
    for (; c < count; c++) {
        const float sign = sign_of(step, x[c]);
        positive |= uint32_t(sign > 0) << c;
        nonzero |= uint32_t(sign != 0) << c;
    }
}

template <class Lanes> inline void quantize_bits(const Step &step, uint8_t *arena, int begin, int end) {
    const int channels = step.result.channels, words = words_of(channels);
    for (int row = begin; row < end; row++)
        for (int column = 0; column < step.result.columns; column++) {
            const float *x = row_of<float>(step.source, arena, row) + int64_t(column) * step.source.pitch;
            uint32_t *y = row_of<uint32_t>(step.result, arena, row) + int64_t(column) * step.result.pitch;
            for (int word = 0; word < words; word++) {
                const int count = channels - word * WORD < WORD ? channels - word * WORD : WORD;
                uint32_t nonzero;
                signs_of_numbers<Lanes>(step, x + word * WORD, count, y[word], nonzero);
                if (step.edge >= 0) y[words + word] = nonzero;
            }
        }
}

template <class Lanes> inline void quantize(const Step &step, uint8_t *arena, int begin, int end) {
    if (step.result.kind == BYTE) quantize_to<uint8_t>(step, arena, begin, end);
    else if (step.result.kind == SHORT) quantize_to<int16_t>(step, arena, begin, end);
    else quantize_bits<Lanes>(step, arena, begin, end);
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

}  // namespace
