// Reductions, norms and softmax over any axes. along.h is faster over the channels of each place.
#pragma once
#include "along.h"

namespace {  // each instruction set has its own

constexpr int BESIDE = 32;  // results that are computed side by side if their numbers are neighbours

enum Over : int32_t { MEAN = 0, LARGEST, SUM, SMALLEST, STANDARDIZED, SHARES, LOG_SHARES };

// The numbers of COUNT results: number k of result p is at from[p][in[k]], or, of NEIGHBOURS, at from[0][in[k] + p].
template <int COUNT, bool NEIGHBOURS> class Results {
    const int64_t count;
    const int32_t *const in, *const out;
    const float *from[NEIGHBOURS ? 1 : COUNT];
    float *to[NEIGHBOURS ? 1 : COUNT];

    ALWAYS float number(int64_t k, int p) const { return NEIGHBOURS ? from[0][in[k] + p] : from[p][in[k]]; }
    ALWAYS void give(int64_t k, int p, float y) const { (NEIGHBOURS ? to[0][out[k] + p] : to[p][out[k]]) = y; }

    template <class Term> ALWAYS void add_all(double *totals, Term term) const {
        for (int p = 0; p < COUNT; p++) totals[p] = term(number(0, p), p);
        for (int64_t k = 1; k < count; k++)
            for (int p = 0; p < COUNT; p++) totals[p] += term(number(k, p), p);
    }
    template <class Better> ALWAYS void extremes(float *most, Better better) const {
        for (int p = 0; p < COUNT; p++) most[p] = number(0, p);
        for (int64_t k = 1; k < count; k++)
            for (int p = 0; p < COUNT; p++) {
                const float x = number(k, p);
                most[p] = better(x, most[p]) ? x : most[p];
            }
    }

  public:
    Results(const Step &step, uint8_t *arena, const int32_t *bases) : count(step.count), in(step.offsets), out(step.each) {
        for (int p = 0; p < (NEIGHBOURS ? 1 : COUNT); p++) {
            from[p] = reinterpret_cast<const float *>(arena + step.source.at) + bases[2 * p];
            to[p] = reinterpret_cast<float *>(arena + step.result.at) + bases[2 * p + 1];
        }
    }
    void reduce(int what) const {
        double totals[COUNT];
        float most[COUNT];
        if (what == LARGEST) extremes(most, [](float x, float y) { return x > y; });
        else if (what == SMALLEST) extremes(most, [](float x, float y) { return x < y; });
        else {
            add_all(totals, [](float x, int) { return double(x); });
            for (int p = 0; p < COUNT; p++) most[p] = float(what == MEAN ? totals[p] / double(count) : totals[p]);
        }
        for (int p = 0; p < COUNT; p++) give(0, p, most[p]);
    }
    void standardize(double eps) const {
        double means[COUNT], spreads[COUNT];
        add_all(means, [](float x, int) { return double(x); });
        for (double &mean : means) mean = mean / double(count);
        add_all(spreads, [&](float x, int p) {
            const double apart = double(x) - means[p];
            return apart * apart;
        });
        for (double &spread : spreads) spread = std::sqrt(spread / double(count) + eps);
        for (int64_t k = 0; k < count; k++)
            for (int p = 0; p < COUNT; p++) give(k, p, float((double(number(k, p)) - means[p]) / spreads[p]));
    }
    // powers: room for count * COUNT numbers.
    void softmax(bool log, double *powers) const {
        float most[COUNT];
        double totals[COUNT];
        extremes(most, [](float x, float y) { return x > y; });
        for (int64_t k = 0; k < count; k++)
            for (int p = 0; p < COUNT; p++) powers[k * COUNT + p] = exp_of(double(number(k, p) - most[p]));
        for (int p = 0; p < COUNT; p++) totals[p] = powers[p];
        for (int64_t k = 1; k < count; k++)
            for (int p = 0; p < COUNT; p++) totals[p] += powers[k * COUNT + p];
        if (log)
            for (double &total : totals) total = log_of_finite(total);
        for (int64_t k = 0; k < count; k++)
            for (int p = 0; p < COUNT; p++)
                give(k, p, float(log ? double(number(k, p) - most[p]) - totals[p] : powers[k * COUNT + p] / totals[p]));
    }
};

template <int COUNT, bool NEIGHBOURS> inline void over_some(const Step &step, uint8_t *arena, const int32_t *bases, std::vector<double> &room) {
    const Results<COUNT, NEIGHBOURS> results(step, arena, bases);
    if (step.what <= SMALLEST) results.reduce(step.what);
    else if (step.what == STANDARDIZED) results.standardize(*step.divisors);
    else {
        room.resize(size_t(step.count) * COUNT);
        results.softmax(step.what == LOG_SHARES, room.data());
    }
}

// outputs: results. spans: for each, its first number in the source and in the result. offsets: its numbers behind the first one, in
// the order of their sums. each: the same in the result. count: of its numbers.
inline void over(const Step &step, uint8_t *arena, int begin, int end) {
    const int64_t rows = step.result.rows, last = int64_t(step.outputs) * end / rows;
    std::vector<double> room;
    for (int64_t at = int64_t(step.outputs) * begin / rows; at < last;) {
        const int32_t *bases = step.spans + 2 * at;
        int64_t alike = 1;  // results beside each other
        while (alike < BESIDE && at + alike < last && bases[2 * alike] == bases[0] + alike && bases[2 * alike + 1] == bases[1] + alike) alike++;
        if (alike == BESIDE) over_some<BESIDE, true>(step, arena, bases, room), at += BESIDE;
        else if (alike >= SIDE_BY_SIDE) over_some<SIDE_BY_SIDE, true>(step, arena, bases, room), at += SIDE_BY_SIDE;
        else if (last - at >= SIDE_BY_SIDE) over_some<SIDE_BY_SIDE, false>(step, arena, bases, room), at += SIDE_BY_SIDE;
        else over_some<1, false>(step, arena, bases, room), at++;
    }
}

}  // namespace
