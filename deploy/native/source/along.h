// Operations along the channels of each place: softmax, reductions, and the first part of layer and group norms.
#pragma once
#include "functions.h"
#include "value.h"
#include <vector>

namespace {  // each instruction set has its own

constexpr int SIDE_BY_SIDE = 8;  // places whose sums are added at once: one sum waits for each of its additions

// Calls act(from, to, count) for up to SIDE_BY_SIDE places of the rows.
template <class Act> inline void each_places(const Step &step, uint8_t *arena, int begin, int end, Act act) {
    const float *from[SIDE_BY_SIDE];
    float *to[SIDE_BY_SIDE];
    int count = 0;
    for (int row = begin; row < end; row++)
        for (int column = 0; column < step.result.columns; column++) {
            from[count] = row_of<float>(step.source, arena, row) + int64_t(column) * step.source.pitch;
            to[count] = row_of<float>(step.result, arena, row) + int64_t(column) * step.result.pitch;
            if (++count < SIDE_BY_SIDE) continue;
            act(from, to, count);
            count = 0;
        }
    if (count) act(from, to, count);
}

// Adds term(place, channel) up over the channels, in order, for each of some places.
template <class Term> inline void add_up(double *totals, int count, int channels, Term term) {
    for (int p = 0; p < SIDE_BY_SIDE; p++) totals[p] = -0.0;  // 0 would change the sum of numbers that are all -0
    if (count == SIDE_BY_SIDE)
        for (int c = 0; c < channels; c++)
            for (int p = 0; p < SIDE_BY_SIDE; p++) totals[p] += term(p, c);
    else
        for (int c = 0; c < channels; c++)
            for (int p = 0; p < count; p++) totals[p] += term(p, c);
}

// The largest of some numbers, found in vectors: it does not depend on the order.
inline float largest_of(const float *x, int count) {
    float most = x[0];
    int c = 0;
    if (count >= EIGHT) {
        Floats all, next;
        std::memcpy(&all, x, sizeof all);
        for (c = EIGHT; c + EIGHT <= count; c += EIGHT) {
            std::memcpy(&next, x + c, sizeof next);
            all = next > all ? next : all;
        }
        for (int i = 0; i < EIGHT; i++) most = all[i] > most ? all[i] : most;
    }
    for (; c < count; c++) most = x[c] > most ? x[c] : most;
    return most;
}

// exp of some numbers, in place; a part of MANY beyond the last one is computed, too.
inline void all_exps(double *x, int64_t count) {
    for (int64_t i = 0; i < count; i += MANY) {
        Many some;
        std::memcpy(&some, x + i, sizeof some);
        some = exp_of(some);
        std::memcpy(x + i, &some, sizeof some);
    }
}

// exp(x - max) over its sum, in fp64. what: 1 for its logarithm.
inline void softmax(const Step &step, uint8_t *arena, int begin, int end) {
    const int channels = step.result.channels;
    std::vector<double> kept(size_t(SIDE_BY_SIDE) * channels + MANY);
    double *const powers = kept.data();
    each_places(step, arena, begin, end, [&](const float **from, float **to, int count) {
        float most[SIDE_BY_SIDE];
        double totals[SIDE_BY_SIDE];
        for (int p = 0; p < count; p++) {
            const float *__restrict x = from[p];
            double *__restrict apart = powers + int64_t(p) * channels;
            const float largest = most[p] = largest_of(x, channels);
            for (int c = 0; c < channels; c++) apart[c] = x[c] - largest;
        }
        all_exps(powers, int64_t(count) * channels);
        add_up(totals, count, channels, [=](int p, int c) { return powers[int64_t(p) * channels + c]; });
        for (int p = 0; p < count; p++) {
            const float *__restrict x = from[p];
            const float largest = most[p];
            const double *__restrict power = powers + int64_t(p) * channels;
            const double total = totals[p];
            float *__restrict y = to[p];
            if (step.what) {
                const double log_total = log_of_finite(total);
                for (int c = 0; c < channels; c++) y[c] = float(double(x[c] - largest) - log_total);
            } else
                for (int c = 0; c < channels; c++) y[c] = float(power[c] / total);
        }
    });
}

// what: 0 mean, 1 maximum, 2 sum, 3 minimum, as in pools.h. The result has one channel.
inline void reduce(const Step &step, uint8_t *arena, int begin, int end) {
    const int channels = step.source.channels, what = step.what;
    each_places(step, arena, begin, end, [=](const float **from, float **to, int count) {
        double totals[SIDE_BY_SIDE];
        if (what == 0 || what == 2) add_up(totals, count, channels, [=](int p, int c) { return double(from[p][c]); });
        else
            for (int p = 0; p < count; p++) {
                float most = from[p][0];
                for (int c = 1; c < channels; c++) {
                    const float x = from[p][c];
                    most = what == 1 ? (x > most ? x : most) : (x < most ? x : most);
                }
                totals[p] = most;
            }
        for (int p = 0; p < count; p++) to[p][0] = float(what == 0 ? totals[p] / channels : totals[p]);
    });
}

// (x - mean) / sqrt(var + eps), in fp64.
inline void standardize(const Step &step, uint8_t *arena, int begin, int end) {
    const int channels = step.result.channels;
    const double eps = *step.divisors;
    each_places(step, arena, begin, end, [=](const float **from, float **to, int count) {
        double means[SIDE_BY_SIDE], squares[SIDE_BY_SIDE];
        add_up(means, count, channels, [=](int p, int c) { return double(from[p][c]); });
        for (double &mean : means) mean = mean / channels;
        add_up(squares, count, channels, [=, &means](int p, int c) {
            const double apart = double(from[p][c]) - means[p];
            return apart * apart;
        });
        for (int p = 0; p < count; p++) {
            const double mean = means[p], spread = std::sqrt(squares[p] / channels + eps);
            for (int c = 0; c < channels; c++) to[p][c] = float((double(from[p][c]) - mean) / spread);
        }
    });
}

}  // namespace
