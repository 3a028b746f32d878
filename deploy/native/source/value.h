// The positions of a value's numbers in memory.
#pragma once
#include "step.h"
#include <cstring>

namespace {  // each instruction set has its own

template <class T> inline T *row_of(const Value &v, uint8_t *arena, int row) {
    int64_t wide = int64_t(v.left) + v.columns + v.right;
    return reinterpret_cast<T *>(arena + v.at) + ((row + int64_t(v.top)) * wide + v.left) * v.pitch;
}

template <class T> inline int64_t row_pitch(const Value &v) {
    return (int64_t(v.left) + v.columns + v.right) * v.pitch;
}

template <class T> void border_of(const Value &v, uint8_t *arena, int begin, int end) {
    T zero = T(v.zero);
    int64_t wide = row_pitch<T>(v), pitch = v.pitch;
    auto fill = [zero](T *at, int64_t count) {
        for (int64_t i = 0; i < count; i++) at[i] = zero;
    };
    for (int row = begin; row < end; row++) {
        T *at = row_of<T>(v, arena, row);
        fill(at - v.left * pitch, v.left * pitch);
        fill(at + v.columns * pitch, v.right * pitch);
    }
    T *first = row_of<T>(v, arena, 0) - v.left * pitch;
    if (begin == 0) fill(first - v.top * wide, v.top * wide);
    if (end == v.rows) fill(first + v.rows * wide, v.bottom * wide);
}

// Fills the border beside rows [begin, end), and above the first or below the last row.
inline void border(const Value &v, uint8_t *arena, int begin, int end) {
    if (!(v.top | v.left | v.bottom | v.right)) return;
    if (v.kind == FLOAT) border_of<float>(v, arena, begin, end);
    else if (v.kind == BYTE) border_of<uint8_t>(v, arena, begin, end);
    else if (v.kind == SHORT) border_of<int16_t>(v, arena, begin, end);
    else border_of<uint32_t>(v, arena, begin, end);
}

}  // namespace
