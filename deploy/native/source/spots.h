// The places of a result, several at a time, and the starts of their windows.
#pragma once
#include "value.h"
#include <utility>

namespace {  // each instruction set has its own

// A place; the start of its window and the place of its result, in numbers (for BITS: words) from the start of their values.
struct Spot {
    int row, column;
    int64_t from, to;
};

// The first place of a row.
inline Spot row_begin(const Step &step, int row) {
    const Value &in = step.source, &out = step.result;
    const int64_t from = (int64_t(in.top) - step.padding[0] + int64_t(row) * step.stride[0]) * row_pitch<uint8_t>(in)
        + (int64_t(in.left) - step.padding[1]) * in.pitch;
    return {row, 0, from, (int64_t(out.top) + row) * row_pitch<uint8_t>(out) + int64_t(out.left) * out.pitch};
}

// Walks through the places of rows [begin, end).
class Walk {
    const Step &step;
    const int64_t across;  // distance between the windows of neighbours in a row
    int64_t left;
    Spot next;

    Spot behind(const Spot &spot) const {
        if (spot.column + 1 == step.result.columns) return row_begin(step, spot.row + 1);
        return {spot.row, spot.column + 1, spot.from + across, spot.to + step.result.pitch};
    }

  public:
    Walk(const Step &of, int begin, int end)
        : step(of), across(int64_t(of.stride[1]) * of.source.pitch), left(int64_t(end - begin) * of.result.columns), next(row_begin(of, begin)) {}

    // Stores the next places, at most `most`, and returns their number: 0 after the last one.
    int take(Spot *spots, int most) {
        const int count = left < most ? int(left) : most;
        for (int p = 0; p < count; p++, next = behind(next)) spots[p] = next;
        left -= count;
        return count;
    }
};

// Calls `act` on places of rows [begin, end), MOST at a time. A small rest is done one by one; a larger rest repeats its first place.
template <int MOST, class Act> inline void each_tile(const Step &step, int begin, int end, Act act) {
    Walk walk(step, begin, end);
    Spot spots[MOST];
    while (const int count = walk.take(spots, MOST)) {
        if (count * 4 <= MOST) {
            for (int p = 0; p < count; p++) act(std::integral_constant<int, 1>(), spots + p, 1);
            continue;
        }
        for (int p = count; p < MOST; p++) spots[p] = spots[0];
        act(std::integral_constant<int, MOST>(), spots, count);
    }
}

// The distance of a tap from the start of its window, in numbers.
inline int64_t tap(const Step &step, int i, int j) {
    return i * step.dilation[0] * row_pitch<uint8_t>(step.source) + int64_t(j) * step.dilation[1] * step.source.pitch;
}

template <class T> inline const T *window_at(const Step &step, const uint8_t *arena, const Spot &spot) {
    return reinterpret_cast<const T *>(arena + step.source.at) + spot.from;
}

template <class T> inline T *result_at(const Step &step, uint8_t *arena, const Spot &spot) {
    return reinterpret_cast<T *>(arena + step.result.at) + spot.to;
}

}  // namespace
