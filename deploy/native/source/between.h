// Bilinear interpolation between the four numbers around a place, in fp64, along columns first.
#pragma once
#include "value.h"

namespace {  // each instruction set has its own

// spans: the two rows that each row lies between, then the two columns of each column. divisors: the shares of the second ones.
inline void bilinear(const Step &step, uint8_t *arena, int begin, int end) {
    const Value &in = step.source, &out = step.result;
    const int32_t *columns = step.spans + 2 * out.rows;
    for (int row = begin; row < end; row++) {
        const float *above = row_of<float>(in, arena, step.spans[2 * row]), *below = row_of<float>(in, arena, step.spans[2 * row + 1]);
        const double down = step.divisors[row], up = 1 - down;
        for (int column = 0; column < out.columns; column++) {
            const int64_t one = int64_t(columns[2 * column]) * in.pitch, other = int64_t(columns[2 * column + 1]) * in.pitch;
            const double right = step.divisors[out.rows + column], left = 1 - right;
            float *__restrict to = row_of<float>(out, arena, row) + int64_t(column) * out.pitch;
            for (int c = 0; c < out.channels; c++) {
                const double high = left * above[one + c] + right * above[other + c], low = left * below[one + c] + right * below[other + c];
                to[c] = float(up * high + down * low);
            }
        }
    }
}

}  // namespace
