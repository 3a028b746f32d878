// Transposed layers on numbers: each result adds up what reaches it. Sums in fp64, rounded once.
// Weights: (groups, rows, columns, inputs of a group, outputs of a group) fp32.
#pragma once
#include "value.h"

namespace {  // each instruction set has its own

// The place of the source that reaches a place of the result through a tap; -1: none.
inline int reaching(const Step &step, int axis, int at, int tap, int size) {
    const int far = at + step.padding[axis] - tap * step.dilation[axis];
    if (far < 0 || far % step.stride[axis]) return -1;
    return far / step.stride[axis] < size ? far / step.stride[axis] : -1;
}

inline void transposed_at(const Step &step, uint8_t *arena, int row, int column, int group, int first, int count) {
    const Value &in = step.source;
    const int inputs = in.channels / step.groups, outputs = step.result.channels / step.groups;
    const float *weight = static_cast<const float *>(step.weight) + int64_t(group) * step.kernel[0] * step.kernel[1] * inputs * outputs + first;
    double total[64] = {0};
    for (int i = 0; i < step.kernel[0]; i++) {
        const int from = reaching(step, 0, row, i, in.rows);
        for (int j = 0; j < step.kernel[1]; j++, weight += int64_t(inputs) * outputs) {
            const int place = reaching(step, 1, column, j, in.columns);
            if (from < 0 || place < 0) continue;
            const float *x = row_of<float>(in, arena, from) + int64_t(place) * in.pitch + group * inputs;
            for (int k = 0; k < inputs; k++) {
                const double number = x[k];
                const float *__restrict w = weight + int64_t(k) * outputs;
                for (int c = 0; c < count; c++) total[c] += number * double(w[c]);
            }
        }
    }
    float *y = row_of<float>(step.result, arena, row) + int64_t(column) * step.result.pitch + group * outputs + first;
    for (int c = 0; c < count; c++) y[c] = float(total[c]) + step.shift[group * outputs + first + c];
}

inline void transposed(const Step &step, uint8_t *arena, int begin, int end) {
    const int outputs = step.result.channels / step.groups;
    for (int row = begin; row < end; row++)
        for (int column = 0; column < step.result.columns; column++)
            for (int group = 0; group < step.groups; group++)
                for (int first = 0; first < outputs; first += 64)
                    transposed_at(step, arena, row, column, group, first, outputs - first < 64 ? outputs - first : 64);
}

}  // namespace
