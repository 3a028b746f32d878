// The loops of kernels.py and selecting.py on all threads, with the best instruction set that runs here. Numbers are stored as
// (rows, channels), in bf16 if `half` is 1, else in fp32.
#include "table.h"

#include <cstddef>
#include <limits>
#include <vector>

#include <omp.h>

#define VISIBLE __attribute__((visibility("default")))

extern const Loops plain_loops, avx2_loops, avx512_loops;

namespace {

const Loops &best() {
    static const Loops *const found = [] {
        const Loops *best = &plain_loops;
#ifdef WITH_AVX2
        if (avx2_loops.runs_here()) best = &avx2_loops;
#endif
#ifdef WITH_AVX512
        if (avx512_loops.runs_here()) best = &avx512_loops;
#endif
        return best;
    }();
    return *found;
}

using Found = std::vector<std::vector<double>>;

// Runs act(part, parts, own) on all threads. Each has `count` numbers of its own, which start as `at_first`. All memory is allocated
// beforehand, because a thread may not throw.
template <class Act> Found on_threads(int64_t count, double at_first, Act act) {
    Found found(static_cast<std::size_t>(omp_get_max_threads()));
    for (auto &own : found) own.assign(static_cast<std::size_t>(count), at_first);
#pragma omp parallel
    act(omp_get_thread_num(), omp_get_num_threads(), found[static_cast<std::size_t>(omp_get_thread_num())].data());
    return found;
}

// Adds what all threads found, in their order.
void added(const Found &found, float *into) {
    for (std::size_t n = 0; n < found[0].size(); n++) {
        double total = 0;
        for (const auto &own : found) total += own[n];
        into[n] = float(total);
    }
}

}  // namespace

// All return 0, or 1 if there is not enough memory.
extern "C" {

// into: two sums for each channel; ends: its least and largest number, or null.
VISIBLE int mc_moments(const void *z, int half, int64_t rows, int channels, const float *k, float *into, float *ends) try {
    added(on_threads(2 * int64_t(channels), 0.0, [&](int part, int parts, double *own) {
        best().moments[half](z, Share(rows, part, parts), channels, k, own);
    }), into);
    if (!ends) return 0;
    const double far = std::numeric_limits<double>::infinity();
    const Found found = on_threads(2 * int64_t(channels), far, [&](int part, int parts, double *own) {
        best().ends[half](z, Share(rows, part, parts), channels, own, own + channels);
    });
    for (int n = 0; n < channels; n++) {
        double least = far, most = far;  // the largest is stored negated
        for (const auto &own : found) {
            if (own[std::size_t(n)] < least) least = own[std::size_t(n)];
            if (own[std::size_t(channels + n)] < most) most = own[std::size_t(channels + n)];
        }
        ends[n] = float(least);
        ends[channels + n] = float(-most);
    }
    return 0;
} catch (...) {
    return 1;
}

VISIBLE int mc_coded(const void *z, int half, int64_t rows, int channels, const float *k, const float *a, const float *c, const Rule *rule,
                     void *out, int out_half) {
#pragma omp parallel
    best().coded[half][out_half](z, Share(rows, omp_get_thread_num(), omp_get_num_threads()), channels, k, a, c, *rule, out);
    return 0;
}

// bytes: whether codes are stored in bytes, else in fp32.
VISIBLE int mc_settled(const float *z, int64_t rows, int channels, const float *scale, const float *bias, const float *a,
                       const float *c, const Rule *rule, void *out, int bytes) {
#pragma omp parallel
    best().settled[bytes](z, Share(rows, omp_get_thread_num(), omp_get_num_threads()), channels, {scale, bias, a, c}, *rule, out);
    return 0;
}

// into: three sums for each channel.
VISIBLE int mc_sums(const void *g, int g_half, const void *z, int half, int64_t rows, int channels, const float *k, const float *a,
                    const float *c, const Rule *rule, float *into) try {
    added(on_threads(3 * int64_t(channels), 0.0, [&](int part, int parts, double *own) {
        best().sums[g_half][half](g, z, Share(rows, part, parts), channels, k, a, c, *rule, own);
    }), into);
    return 0;
} catch (...) {
    return 1;
}

VISIBLE int mc_back(const void *g, int g_half, const void *z, int half, int64_t rows, int channels, const float *k, const float *a,
                     const float *c, const Rule *rule, const float *e0, const float *e1, void *out) {
#pragma omp parallel
    best().back[g_half][half](g, z, Share(rows, omp_get_thread_num(), omp_get_num_threads()), channels, k, a, c, *rule, e0, e1, out);
    return 0;
}

VISIBLE int mc_selected(const void *z, int half, int64_t pictures, int channels, const float *a, const Windows *of, float *out,
                        uint8_t *which) {
#pragma omp parallel
    best().selected[half](z, Share(pictures * of->down, omp_get_thread_num(), omp_get_num_threads()), channels, a, *of, out, which);
    return 0;
}

VISIBLE int mc_returned(const float *d, const uint8_t *which, const void *z, int half, int64_t pictures, int channels, const float *k,
                        const float *e0, const float *e1, const Windows *of, void *out) {
#pragma omp parallel
    best().returned[half](d, which, z, Share(pictures * of->height, omp_get_thread_num(), omp_get_num_threads()), channels, k, e0, e1, *of,
                          out);
    return 0;
}

}
