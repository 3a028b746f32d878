// The loops of kernels.py on all threads, by the best instruction set that runs here. Numbers lie as (rows, channels), bf16 where
// `half` is 1, else fp32.
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

// Runs act(part, parts, own sums) on all threads, and adds what they found, in their order.
template <class Act> void on_threads(int64_t count, float *into, Act act) {
    std::vector<std::vector<double>> found(static_cast<std::size_t>(omp_get_max_threads()));
#pragma omp parallel
    {
        const int part = omp_get_thread_num();
        found[std::size_t(part)].assign(std::size_t(count), 0.0);
        act(part, omp_get_num_threads(), found[std::size_t(part)].data());
    }
    for (int64_t n = 0; n < count; n++) {
        double total = 0;
        for (const auto &each : found) total += each.empty() ? 0.0 : each[std::size_t(n)];
        into[n] = float(total);
    }
}

}  // namespace

extern "C" {

// into: two sums a channel; ends: its least and largest number, too, or null.
VISIBLE void mc_moments(const void *z, int half, int64_t rows, int channels, const float *k, float *into, float *ends) {
    on_threads(2 * int64_t(channels), into, [&](int part, int parts, double *found) {
        best().moments[half](z, Share(rows, part, parts), channels, k, found);
    });
    if (!ends) return;
    const float far = std::numeric_limits<float>::infinity();
    std::vector<std::vector<float>> found(static_cast<std::size_t>(omp_get_max_threads()));
#pragma omp parallel
    {
        auto &own = found[std::size_t(omp_get_thread_num())];
        own.assign(std::size_t(channels), far);
        own.resize(2 * std::size_t(channels), -far);
        best().ends[half](z, Share(rows, omp_get_thread_num(), omp_get_num_threads()), channels, own.data(), own.data() + channels);
    }
    for (int n = 0; n < channels; n++) {
        ends[n] = far, ends[channels + n] = -far;
        for (const auto &own : found) {
            if (own.empty()) continue;
            if (own[std::size_t(n)] < ends[n]) ends[n] = own[std::size_t(n)];
            if (own[std::size_t(channels + n)] > ends[channels + n]) ends[channels + n] = own[std::size_t(channels + n)];
        }
    }
}

VISIBLE void mc_coded(const void *z, int half, int64_t rows, int channels, const float *k, const float *a, const float *c, const Rule *rule,
                      void *out, int out_half) {
#pragma omp parallel
    best().coded[half][out_half](z, Share(rows, omp_get_thread_num(), omp_get_num_threads()), channels, k, a, c, *rule, out);
}

// into: three sums a channel.
VISIBLE void mc_sums(const void *g, int g_half, const void *z, int half, int64_t rows, int channels, const float *k, const float *a,
                     const float *c, const Rule *rule, float *into) {
    on_threads(3 * int64_t(channels), into, [&](int part, int parts, double *found) {
        best().sums[g_half][half](g, z, Share(rows, part, parts), channels, k, a, c, *rule, found);
    });
}

VISIBLE void mc_back(const void *g, int g_half, const void *z, int half, int64_t rows, int channels, const float *k, const float *a,
                     const float *c, const Rule *rule, const float *e0, const float *e1, void *out) {
#pragma omp parallel
    best().back[g_half][half](g, z, Share(rows, omp_get_thread_num(), omp_get_num_threads()), channels, k, a, c, *rule, e0, e1, out);
}

}
