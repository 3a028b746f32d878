// The loops of kernels.py and selecting.py for one instruction set, over rows [begin, end) of (rows, channels). Parameters of
// channels are fp32.
#pragma once
#include "rows.h"
#include "table.h"
#include "windows.h"

namespace {  // each instruction set has its own

template <class Z> ALWAYS void moments_of(const Z *z, Share share, int channels, const float *k, double *into) {
    summed<2>(share, channels, into, [&](int64_t row, int at, int count, Vector *found) ALWAYS_LAMBDA {
        const Vector apart = load(z + row * channels + at, count) - load(k + at, count);
        found[0] += apart;
        found[1] += apart * apart;
    });
}

// low: the least number of each channel; high: the largest, negated.
template <class Z> ALWAYS void ends_of(const Z *z, Share share, int channels, double *low, double *high) {
    if (share.begin >= share.end) return;
    each_piece(channels, [&](int first, int some) ALWAYS_LAMBDA {
        Vector least[PIECE / LANES], most[PIECE / LANES];
        for (int64_t row = share.begin; row < share.end; row++)
            each_vector(some, [&](int at, int count) ALWAYS_LAMBDA {
                const Vector raw = load(z + row * channels + first + at, count), turned = -raw;
                Vector &lowest = least[at / LANES], &highest = most[at / LANES];
                if (row == share.begin) lowest = raw, highest = turned;
                lowest = raw < lowest ? raw : lowest;
                highest = turned < highest ? turned : highest;
            });
        for (int at = 0; at < some; at++) low[first + at] = least[at / LANES][at % LANES], high[first + at] = most[at / LANES][at % LANES];
    });
}

// Returns the code of a number that an activation reads.
ALWAYS Vector code(Vector x, const Rule &rule) {
    const Vector one = all(1.0f);
    x = between(x, rule.bottom, rule.top);
    if (rule.kind == 1) return nearest(between(x / rule.step, rule.low, rule.high));
    if (rule.kind == 4) return nearest(between(x * 0.1f * rule.high, rule.low, rule.high));  // 0.1: see dorefa.py
    if (rule.kind == 2) return x >= 0.0f ? one : -one;
    if (rule.kind == 3) return (x > 0.5f ? one : Vector{}) - (x < -0.5f ? one : Vector{});
    return x;
}

template <class Z, class Out>
ALWAYS void coded_of(const Z *z, Share share, int channels, const float *k, const float *a, const float *c, const Rule &rule, Out *out) {
    for (int64_t row = share.begin; row < share.end; row++)
        each_vector(channels, [&](int at, int count) ALWAYS_LAMBDA {
            const Vector x = (load(z + row * channels + at, count) - load(k + at, count)) * load(a + at, count) + load(c + at, count);
            store(out + row * channels + at, code(x, rule), count);
        });
}

// Scale and bias of a layer, then a batch norm in evaluation, x a + c; both in fp32, as torch computes them. Null: there is none.
template <class Out>
ALWAYS void settled_of(const float *z, Share share, int channels, const Factors &of, const Rule &rule, Out *out) {
    for (int64_t row = share.begin; row < share.end; row++)
        each_vector(channels, [&](int at, int count) ALWAYS_LAMBDA {
            Vector x = load(z + row * channels + at, count);
            if (of.scale) x = of.bias ? plus(x, load(of.scale + at, count), load(of.bias + at, count)) : x * load(of.scale + at, count);
            else if (of.bias) x = x + load(of.bias + at, count);
            if (of.a) x = plus(x, load(of.a + at, count), load(of.c + at, count));
            store(out + row * channels + at, code(x, rule), count);
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

// LEARNED: whether the step is learned. Without it the third sums stay 0.
template <bool LEARNED, class G, class Z>
ALWAYS void sums_of(const G *g, const Z *z, Share share, int channels, const float *k, const float *a, const float *c, const Rule &rule,
                    double *into) {
    summed<LEARNED ? 3 : 2>(share, channels, into, [&](int64_t row, int at, int count, Vector *found) ALWAYS_LAMBDA {
        const Vector apart = load(z + row * channels + at, count) - load(k + at, count);
        const Vector v = apart * load(a + at, count) + load(c + at, count);
        const Vector d = pulled(load(g + row * channels + at, count), v, rule);
        found[0] += d * apart;
        found[1] += d;
        if (LEARNED)
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
template <class Out>
void settled_any(const float *z, Share share, int channels, const Factors &of, const Rule &rule, void *out) {
    settled_of(z, share, channels, of, rule, static_cast<Out *>(out));
}
template <class G, class Z>
void sums_any(const void *g, const void *z, Share share, int channels, const float *k, const float *a, const float *c, const Rule &rule,
              double *into) {
    const G *const of = static_cast<const G *>(g);
    const Z *const at = static_cast<const Z *>(z);
    if (rule.first <= rule.last) sums_of<true>(of, at, share, channels, k, a, c, rule, into);
    else sums_of<false>(of, at, share, channels, k, a, c, rule, into);
}
template <class G, class Z>
void back_any(const void *g, const void *z, Share share, int channels, const float *k, const float *a, const float *c, const Rule &rule,
              const float *e0, const float *e1, void *out) {
    back_of(static_cast<const G *>(g), static_cast<const Z *>(z), share, channels, k, a, c, rule, e0, e1, static_cast<Z *>(out));
}

template <class Z>
void selected_any(const void *z, Share share, int channels, const float *a, const Windows &of, float *out, uint8_t *which) {
    selected_of(static_cast<const Z *>(z), share, channels, a, of, out, which);
}
template <class Z>
void returned_any(const float *d, const uint8_t *which, const void *z, Share share, int channels, const float *k, const float *e0,
                  const float *e1, const Windows &of, void *out) {
    returned_of(d, which, static_cast<const Z *>(z), share, channels, k, e0, e1, of, static_cast<Z *>(out));
}

}  // namespace

// Chosen by which numbers are bf16: z; the gradient and z; or z and the codes. Those of `settled` are chosen by whether codes are bytes.
#define TABLE(name, runs_here) \
    extern const Loops name; \
    const Loops name = { \
        runs_here, \
        {moments_any<float>, moments_any<Half>}, \
        {ends_any<float>, ends_any<Half>}, \
        {{coded_any<float, float>, coded_any<float, Half>}, {coded_any<Half, float>, coded_any<Half, Half>}}, \
        {settled_any<float>, settled_any<uint8_t>}, \
        {{sums_any<float, float>, sums_any<float, Half>}, {sums_any<Half, float>, sums_any<Half, Half>}}, \
        {{back_any<float, float>, back_any<float, Half>}, {back_any<Half, float>, back_any<Half, Half>}}, \
        {selected_any<float>, selected_any<Half>}, \
        {returned_any<float>, returned_any<Half>}, \
    };
