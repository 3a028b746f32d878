// Rows of numbers in vectors of channels, and sums over rows.
#pragma once
#include "lanes.h"

namespace {  // each instruction set has its own

constexpr int BLOCK = 64;  // rows whose sums are fp32
constexpr int PIECE = 512;  // channels, a multiple of LANES

// Calls act(channel, count) for each vector of channels; the last one may not be full.
template <class Act> ALWAYS void each_vector(int channels, Act act) {
    int at = 0;
    for (; at + LANES <= channels; at += LANES) act(at, LANES);
    if (at < channels) act(at, channels - at);
}

// Calls act(first, some) for each piece of the channels. Its sums stay near, and a row of it is long enough to be read in order.
template <class Act> ALWAYS void each_piece(int channels, Act act) {
    for (int first = 0; first < channels; first += PIECE) act(first, channels - first < PIECE ? channels - first : PIECE);
}

// Sums over rows, COUNT for each channel. Threads add in a fixed order, so that the same number of threads gives the same bits.
// Sums of a block of rows are fp32; blocks are added in fp64. Rows are read one by one: memory that is read in order is twice as fast.
template <int COUNT, class Add> ALWAYS void summed(Share share, int channels, double *into, Add add) {
    each_piece(channels, [&](int first, int some) ALWAYS_LAMBDA {
        Vector sums[COUNT][PIECE / LANES];
        for (int64_t begin = share.begin; begin < share.end; begin += BLOCK) {
            const int64_t end = begin + BLOCK < share.end ? begin + BLOCK : share.end;
            for (int64_t row = begin; row < end; row++)
                each_vector(some, [&](int at, int count) ALWAYS_LAMBDA {
                    Vector found[COUNT];
                    for (int n = 0; n < COUNT; n++) found[n] = row == begin ? Vector{} : sums[n][at / LANES];
                    add(row, first + at, count, found);
                    for (int n = 0; n < COUNT; n++) sums[n][at / LANES] = found[n];
                });
            for (int n = 0; n < COUNT; n++)
                for (int at = 0; at < some; at++) into[int64_t(n) * channels + first + at] += sums[n][at / LANES][at % LANES];
        }
    });
}

}  // namespace
