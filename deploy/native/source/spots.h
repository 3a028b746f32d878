// The places of a result, some at a time, and where their windows begin.
#pragma once
#include "value.h"
#include <utility>

namespace {  // each instruction set has its own

// A place, and in numbers (of BITS: words) from the begin of their values: where its window begins and where its result lies.
struct Spot {
    int row, column;
    int64_t from, to;
};

inline Spot row_begin(const Step &step, int row) {
    const Value &in = step.source, &out = step.result;
    const int64_t line = (int64_t(in.left) + in.columns + in.right) * in.pitch;
    const int64_t from = (int64_t(in.top) - step.padding[0] + int64_t(row) * step.stride[0]) * line
        + (int64_t(in.left) - step.padding[1]) * in.pitch;
    return {row, 0, from, ((int64_t(out.top) + row) * (int64_t(out.left) + out.columns + out.right) + out.left) * out.pitch};
}

// How far the windows of neighbours in a row lie from each other.
inline int64_t across(const Step &step) { return int64_t(step.stride[1]) * step.source.pitch; }

// ACROSS: as above, computed once.
inline Spot behind(const Step &step, Spot spot, int64_t across) {
    if (++spot.column == step.result.columns) return row_begin(step, spot.row + 1);
    spot.from += across;
    spot.to += step.result.pitch;
    return spot;
}

// Places of rows [begin, end), MOST at a time and few single ones; behind the last one the first is taken again.
template <int MOST, class Act> inline void each_tile(const Step &step, int begin, int end, Act act) {
    const int64_t far = across(step);
    int64_t left = int64_t(end - begin) * step.result.columns;
    for (Spot next = row_begin(step, begin); left > 0; left -= MOST) {
        Spot spots[MOST];
        const int count = left < MOST ? int(left) : MOST;
        for (int p = 0; p < count; p++, next = behind(step, next, far)) spots[p] = next;
        if (count * 4 <= MOST) {
            for (int p = 0; p < count; p++) act(std::integral_constant<int, 1>(), spots + p, 1);
            continue;
        }
        for (int p = count; p < MOST; p++) spots[p] = spots[0];
        act(std::integral_constant<int, MOST>(), spots, count);
    }
}

template <class T> inline const T *window_at(const Step &step, const uint8_t *arena, const Spot &spot) {
    return reinterpret_cast<const T *>(arena + step.source.at) + spot.from;
}

template <class T> inline T *result_at(const Step &step, uint8_t *arena, const Spot &spot) {
    return reinterpret_cast<T *>(arena + step.result.at) + spot.to;
}

}  // namespace
