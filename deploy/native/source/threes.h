// Three words of signs at a time. Words a, b, c are held as a, a ^ b, a ^ b ^ c, in weights and in what they read alike, so one
// exclusive-or finds where each of the three forms differs. Of three differences, the last form gives the count's low bit, and
// their majority its high bit: if a and b are equal, a; else the opposite of a ^ b ^ c. Two bit counts do the work of three.
#pragma once
#include "value.h"

namespace {  // each instruction set has its own

inline void copy_threes(const uint32_t *__restrict from, uint32_t *__restrict to, int many) {
    for (int k = 0; k < many; k++) {
        const uint32_t first = from[3 * k], two = first ^ from[3 * k + 1];
        to[3 * k] = first;
        to[3 * k + 1] = two;
        to[3 * k + 2] = two ^ from[3 * k + 2];
    }
}

// Copies words of signs, each three of a place in this form; words beyond the last three stay as they are.
inline void threes(const Step &step, uint8_t *arena, int begin, int end) {
    const int words = step.source.pitch, whole = words / 3 * 3;
    for (int row = begin; row < end; row++) {
        const uint32_t *from = row_of<uint32_t>(step.source, arena, row);
        uint32_t *to = row_of<uint32_t>(step.result, arena, row);
        if (whole == words) {
            copy_threes(from, to, whole / 3 * step.result.columns);
            continue;
        }
        for (int column = 0; column < step.result.columns; column++, from += words, to += words) {
            copy_threes(from, to, whole / 3);
            for (int k = whole; k < words; k++) to[k] = from[k];
        }
    }
}

}  // namespace
