// Max-pools: the number that each window selects, and the gradient of numbers that windows selected.
#pragma once
#include "lanes.h"
#include "table.h"

namespace {  // each instruction set has its own

constexpr int MOST = 256;  // numbers in a window, and windows that hold a number

// As each_vector, but the last vector is full and computes some channels a second time: a part of a vector takes longer.
template <class Act> ALWAYS void each_full_vector(int channels, Act act) {
    int at = 0;
    for (; at + LANES <= channels; at += LANES) act(at, LANES);
    if (at < channels) at >= LANES ? act(channels - LANES, LANES) : act(at, channels - at);
}

// Computes rows of windows: of each the number z for which z a is largest, the first if there are several, or NaN.
template <class Z>
ALWAYS void selected_of(const Z *z, Share share, int channels, const float *a, const Windows &of, float *out, uint8_t *which) {
    for (int64_t row = share.begin; row < share.end; row++) {
        const Z *const map = z + row / of.down * of.height * of.width * channels;
        const int top = int(row % of.down) * of.step_down - of.above;
        const int first_down = top < 0 ? -top : 0, last_down = top + of.size_down > of.height ? of.height - top : of.size_down;
        for (int across = 0; across < of.across; across++) {
            const int left = across * of.step_across - of.left;
            const int first = left < 0 ? -left : 0, last = left + of.size_across > of.width ? of.width - left : of.size_across;
            const int64_t to = (row * of.across + across) * channels;
            each_full_vector(channels, [&](int at, int count) ALWAYS_LAMBDA {
                const Vector factor = load(a + at, count), one = all(1.0f);
                const Vector sign = (factor > 0.0f ? one : Vector{}) - (factor < 0.0f ? one : Vector{});
                const auto read = [&](int y, int x) ALWAYS_LAMBDA {
                    return load(map + (int64_t(top + y) * of.width + left + x) * channels + at, count);
                };
                Vector chosen = read(first_down, first), best = chosen * sign;
                Bits number = Bits{} + uint32_t(first_down * of.size_across + first);
                for (int y = first_down; y < last_down; y++)
                    for (int x = first; x < last; x++) {
                        const Vector here = read(y, x), size = here * sign;
                        const auto better = (size > best) | (size != size);
                        best = better ? size : best;
                        chosen = better ? here : chosen;
                        number = better ? Bits{} + uint32_t(y * of.size_across + x) : number;
                    }
                store(out + to + at, chosen, count);
                store(which + to + at, number, count);
            });
        }
    }
}

struct Reach {  // the windows [first, last) that hold a number at `at`
    int at, first, last;
    Reach(int at, int size, int step, int count)
        : at(at), first(at < size ? 0 : (at - size) / step + 1), last(at / step < count ? at / step + 1 : count) {}
};

// A window that holds a number: where its own values are stored, and what `which` says if it selected that number.
struct Read {
    int64_t from;
    uint32_t number;
};

// SOME: how many windows to read, or 0: `some`.
template <int SOME, class Z>
void returned_to(const float *d, const uint8_t *which, const Z *z, const Read *reads, int some, int channels, const float *k,
                 const float *e0, const float *e1, Z *out) {
    each_full_vector(channels, [&](int at, int count) ALWAYS_LAMBDA {
        Vector found = load(e0 + at, count) + (load(z + at, count) - load(k + at, count)) * load(e1 + at, count);
        for (int n = 0; n < (SOME ? SOME : some); n++) {
            const Vector of = load(d + reads[n].from + at, count);
            found += load(which + reads[n].from + at, count) == reads[n].number ? of : Vector{};
        }
        store(out + at, found, count);
    });
}

// Computes rows of maps: each number's share d of the windows that selected it, and what it has through mean and variance.
template <class Z>
ALWAYS void returned_of(const float *d, const uint8_t *which, const Z *z, Share share, int channels, const float *k, const float *e0,
                        const float *e1, const Windows &of, Z *out) {
    for (int64_t row = share.begin; row < share.end; row++) {
        const int64_t map = row / of.height * of.down;
        const Reach y(int(row % of.height) + of.above, of.size_down, of.step_down, of.down);
        for (int column = 0; column < of.width; column++) {
            const Reach x(column + of.left, of.size_across, of.step_across, of.across);
            Read reads[MOST];
            int some = 0;
            for (int down = y.first; down < y.last; down++)
                for (int across = x.first; across < x.last; across++)
                    reads[some++] = {((map + down) * of.across + across) * channels,
                                     uint32_t((y.at - down * of.step_down) * of.size_across + x.at - across * of.step_across)};
            const int64_t to = (row * of.width + column) * channels;
            const auto run = some == 1 ? returned_to<1, Z> : some == 2 ? returned_to<2, Z> : some == 4 ? returned_to<4, Z> : returned_to<0, Z>;
            run(d, which, z + to, reads, some, channels, k, e0, e1, out + to);
        }
    }
}

}  // namespace
