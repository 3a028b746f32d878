// The peak rate of a core: the kernels' own products on data in the first-level cache.
#pragma once
#include "signs.h"
#include <chrono>

namespace {  // each instruction set has its own

constexpr int PEAK_UNITS = 64;

// The highest rate of multiply-accumulates per second measured within `seconds`; a call has `many` of them.
template <class Act> double rate_of(double many, double seconds, Act act) {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point begin = Clock::now();
    double best = 0;
    for (Clock::time_point before = begin, after; std::chrono::duration<double>(before - begin).count() < seconds; before = after) {
        for (int i = 0; i < 100; i++) act();
        after = Clock::now();
        const double rate = 100 * many / std::chrono::duration<double>(after - before).count();
        best = rate > best ? rate : best;
    }
    return best;
}

template <class Lanes> double peak_of_bytes(double seconds) {
    alignas(64) static const int8_t weight[PEAK_UNITS * BLOCK * Lanes::WIDTH * 4] = {1};
    static const uint8_t x[PEAK_UNITS * 4] = {1};
    alignas(64) int32_t sums[Lanes::PLACES * BLOCK * Lanes::WIDTH];
    const uint8_t *from[Lanes::PLACES];
    int32_t offsets[PEAK_UNITS];
    for (int p = 0; p < Lanes::PLACES; p++) from[p] = x;
    for (int k = 0; k < PEAK_UNITS; k++) offsets[k] = 4 * k;
    Step step{};
    step.count = step.depth = PEAK_UNITS;
    return rate_of(sizeof sums / 4.0 * PEAK_UNITS * 4, seconds, [&] {
        fours<Lanes, Lanes::PLACES, BLOCK>(step, from, offsets, weight, sums);
        asm volatile("" : : "r"(sums) : "memory");
    });
}

template <class Counts, int... P> double peak_of_bits(double seconds, Indices<P...>) {
    constexpr int THREES = PEAK_UNITS / 3, WORDS = 3 * THREES;
    alignas(64) static const uint32_t zeros[WORDS * Counts::WIDTH + sizeof...(P)] = {0};
    const uint32_t *weight = zeros, *x = zeros;
    asm volatile("" : "+r"(weight), "+r"(x));  // hides the contents from compilers
    alignas(64) int32_t sums[sizeof...(P) * Counts::WIDTH];
    return rate_of(double(WORD) * WORDS * Counts::WIDTH * sizeof...(P), seconds, [&] {
        Counts found[sizeof...(P)];
        for (int k = 0; k < WORDS; k += 3) ((found[P].add_three(x + k + P, weight + k * Counts::WIDTH, Counts::WIDTH)), ...);
        ((found[P].total(sums + P * Counts::WIDTH)), ...);
        asm volatile("" : : "r"(sums) : "memory");
    });
}

// bits: 1: products of signs, 0: products of bytes.
template <class Lanes, class Counts> double peak(int32_t bits, double seconds) {
    return bits ? peak_of_bits<Counts>(seconds, std::make_integer_sequence<int, Counts::PLACES>()) : peak_of_bytes<Lanes>(seconds);
}

}  // namespace
