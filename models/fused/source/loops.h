// The loops of kernels.py for one instruction set, over rows [begin, end) of (rows, channels). Parameters of channels are fp32.
#pragma once
#include "lanes.h"
#include "table.h"

namespace {  // each instruction set has its own

constexpr int BLOCK = 64;  // rows whose sums are kept in registers

// Calls act(channel, all) for each vector of channels; `all` is false for a last vector that is not full.
template <class Act> ALWAYS void each_vector(int channels, Act act) {
    int at = 0;
    for (; at + LANES <= channels; at += LANES) act(at, LANES);
    if (at < channels) act(at, channels - at);
}

// Sums over rows, `count` for each channel. Threads add in a fixed order, so that the same number of threads gives the same bits.
// Sums of a block of rows are fp32; blocks are added in fp64.
template <int COUNT, class Add> ALWAYS void summed(int64_t begin, int64_t end, int channels, double *into, Add add) {
    for (int64_t row = begin; row < end; row += BLOCK) {
        const int64_t last = row + BLOCK < end ? row + BLOCK : end;
        each_vector(channels, [&](int at, int count) ALWAYS_LAMBDA {
            Vector found[COUNT];
            for (int n = 0; n < COUNT; n++) found[n] = Vector{};
            for (int64_t r = row; r < last; r++) add(r, at, count, found);
            for (int n = 0; n < COUNT; n++)
                for (int lane = 0; lane < count; lane++) into[int64_t(n) * channels + at + lane] += found[n][lane];
        });
    }
}

template <class Z> ALWAYS void moments_of(const Z *z, Share share, int channels, const float *k, double *into) {
    summed<2>(share.begin, share.end, channels, into, [&](int64_t row, int at, int count, Vector *found) ALWAYS_LAMBDA {
        const Vector apart = load(z + row * channels + at, count) - load(k + at, count);
        found[0] += apart;
        found[1] += apart * apart;
    });
}

// low: the least number of each channel; high: the largest, negated.
template <class Z> ALWAYS void ends_of(const Z *z, Share share, int channels, double *low, double *high) {
    each_vector(channels, [&](int at, int count) ALWAYS_LAMBDA {
        if (share.begin >= share.end) return;
        Vector least = load(z + share.begin * channels + at, count), most = -least;
        for (int64_t row = share.begin; row < share.end; row++) {
            const Vector raw = load(z + row * channels + at, count), turned = -raw;
            least = raw < least ? raw : least;
            most = turned < most ? turned : most;
        }
        for (int lane = 0; lane < count; lane++) low[at + lane] = least[lane], high[at + lane] = most[lane];
    });
}

template <class Z, class Out>
ALWAYS void coded_of(const Z *z, Share share, int channels, const float *k, const float *a, const float *c, const Rule &rule, Out *out) {
    const Vector step = all(rule.step), one = all(1.0f);
    for (int64_t row = share.begin; row < share.end; row++)
        each_vector(channels, [&](int at, int count) ALWAYS_LAMBDA {
            Vector x = (load(z + row * channels + at, count) - load(k + at, count)) * load(a + at, count) + load(c + at, count);
            x = between(x, rule.bottom, rule.top);
            if (rule.kind == 1) x = nearest(between(x / step, rule.low, rule.high));
            else if (rule.kind == 2) x = x >= 0.0f ? one : -one;
            else if (rule.kind == 3) x = (x > 0.5f ? one : Vector{}) - (x < -0.5f ? one : Vector{});
            store(out + row * channels + at, x, count);
        });
}

// Returns the gradient of v, the number that is coded in steps.
ALWAYS Vector pulled(Vector g, Vector v, const Rule &rule) {
    const Vector zero{}, one = all(1.0f);
    if (rule.slope == 1) {
        const Vector near = one - size(v);
        g = g * (near > 0.0f ? near : zero);
    } else if (rule.slope == 2) {
        const Vector near = one - 2.0f * size(size(v) - 0.5f);
        g = g * (near > 0.0f ? near : zero);
    }
    g = v >= rule.least ? g : zero;
    return v <= rule.most ? g : zero;
}

// Returns what a number adds to the gradient of -log(step). A number that the activation clamps still depends on the step.
ALWAYS Vector inside(Vector g, Vector x, const Rule &rule) {
    const Vector zero{};
    g = x >= rule.first ? g * x : zero;
    return x <= rule.last ? g : zero;
}

template <class G, class Z>
ALWAYS void sums_of(const G *g, const Z *z, Share share, int channels, const float *k, const float *a, const float *c, const Rule &rule,
                    double *into) {
    summed<3>(share.begin, share.end, channels, into, [&](int64_t row, int at, int count, Vector *found) ALWAYS_LAMBDA {
        const Vector apart = load(z + row * channels + at, count) - load(k + at, count);
        const Vector v = apart * load(a + at, count) + load(c + at, count);
        const Vector d = pulled(load(g + row * channels + at, count), v, rule);
        found[0] += d * apart;
        found[1] += d;
        found[2] += inside(load(g + row * channels + at, count), between(v, rule.bottom / rule.step, rule.top / rule.step), rule);
    });
}

template <class G, class Z>
ALWAYS void back_of(const G *g, const Z *z, Share share, int channels, const float *k, const float *a, const float *c, const Rule &rule,
                    const float *e0, const float *e1, Z *out) {
    for (int64_t row = share.begin; row < share.end; row++)
        each_vector(channels, [&](int at, int count) ALWAYS_LAMBDA {
            const Vector apart = load(z + row * channels + at, count) - load(k + at, count);
            const Vector factor = load(a + at, count), v = apart * factor + load(c + at, count);
            const Vector d = g ? pulled(load(g + row * channels + at, count), v, rule) : Vector{};
            store(out + row * channels + at, d * factor + load(e0 + at, count) + apart * load(e1 + at, count), count);
        });
}

template <class Z> void moments_any(const void *z, Share share, int channels, const float *k, double *into) {
    moments_of(static_cast<const Z *>(z), share, channels, k, into);
}
template <class Z> void ends_any(const void *z, Share share, int channels, double *low, double *high) {
    ends_of(static_cast<const Z *>(z), share, channels, low, high);
}
template <class Z, class Out>
void coded_any(const void *z, Share share, int channels, const float *k, const float *a, const float *c, const Rule &rule, void *out) {
    coded_of(static_cast<const Z *>(z), share, channels, k, a, c, rule, static_cast<Out *>(out));
}
template <class G, class Z>
void sums_any(const void *g, const void *z, Share share, int channels, const float *k, const float *a, const float *c, const Rule &rule,
              double *into) {
    sums_of(static_cast<const G *>(g), static_cast<const Z *>(z), share, channels, k, a, c, rule, into);
}
template <class G, class Z>
void back_any(const void *g, const void *z, Share share, int channels, const float *k, const float *a, const float *c, const Rule &rule,
              const float *e0, const float *e1, void *out) {
    back_of(static_cast<const G *>(g), static_cast<const Z *>(z), share, channels, k, a, c, rule, e0, e1, static_cast<Z *>(out));
}

}  // namespace

// Chosen by which numbers are bf16: z; the gradient and z; or z and the codes.
#define TABLE(name, runs_here) \
    extern const Loops name; \
    const Loops name = { \
        runs_here, \
        {moments_any<float>, moments_any<Half>}, \
        {ends_any<float>, ends_any<Half>}, \
        {{coded_any<float, float>, coded_any<float, Half>}, {coded_any<Half, float>, coded_any<Half, Half>}}, \
        {{sums_any<float, float>, sums_any<float, Half>}, {sums_any<Half, float>, sums_any<Half, Half>}}, \
        {{back_any<float, float>, back_any<float, Half>}, {back_any<Half, float>, back_any<Half, Half>}}, \
    };
