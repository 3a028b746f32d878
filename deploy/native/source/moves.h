// Moves of numbers, as runs that are contiguous before and after.
#pragma once
#include "value.h"

namespace {  // each instruction set has its own

// COUNT: numbers of each run; 0: run.count. Short runs are copied without a call.
template <class T, int COUNT> inline void copy_runs(const Run &run, const T *from, T *to) {
    const int64_t from_step = run.from_step, to_step = run.to_step;
    for (int64_t i = 0; i < run.many; i++, from += from_step, to += to_step) std::memcpy(to, from, sizeof(T) * (COUNT ? COUNT : run.count));
}

template <class T> inline void move_run(const Run &run, const T *from, T *to, T fill) {
    to += run.to;
    if (run.from < 0) {
        for (int64_t i = 0; i < run.many; i++, to += run.to_step)
            for (int64_t k = 0; k < run.count; k++) to[k] = fill;
        return;
    }
    from += run.from;
    switch (run.count) {
        case 1: return copy_runs<T, 1>(run, from, to);
        case 2: return copy_runs<T, 2>(run, from, to);
        case 4: return copy_runs<T, 4>(run, from, to);
        case 8: return copy_runs<T, 8>(run, from, to);
        case 16: return copy_runs<T, 16>(run, from, to);
        case 32: return copy_runs<T, 32>(run, from, to);
        default: return copy_runs<T, 0>(run, from, to);
    }
}

template <class T> inline void move_of(const Step &step, uint8_t *arena) {
    const T *from = reinterpret_cast<const T *>(arena + step.source.at);
    T *to = reinterpret_cast<T *>(arena + step.result.at);
    const T fill = T(step.numbers[0]);
    for (int64_t i = 0; i < step.count; i++) move_run(step.runs[i], from, to, fill);
}

inline void move(const Step &step, uint8_t *arena, int begin, int) {
    if (begin != 0) return;
    if (step.result.kind == FLOAT) move_of<float>(step, arena);
    else if (step.result.kind == BYTE) move_of<uint8_t>(step, arena);
    else if (step.result.kind == SHORT) move_of<int16_t>(step, arena);
    else move_of<uint32_t>(step, arena);
}

}  // namespace
