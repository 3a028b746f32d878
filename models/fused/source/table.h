// The functions that every instruction set has, and the formula that they are given.
#pragma once
#include <cstdint>

struct Half { uint16_t bits; };  // bf16: the upper half of fp32

// How numbers become codes, and where codes have a slope; the same as in kernels.py.
struct Rule {
    int kind, slope;        // 0 number, 1 round, 2 sign, 3 ternary, 4 share; 0 an interval, 1 soft signs, 2 soft ternary ones
    float bottom, top;      // of the activation
    float step, low, high;  // of codes
    float least, most;      // x / step has a gradient between them
    float first, last;      // x / step gives the step a gradient between them
};

// What evaluation multiplies and adds in each channel: a layer's scale and bias, then a batch norm's a and c; each may be null.
struct Factors {
    const float *scale, *bias, *a, *c;
};

// The windows of a max-pool, see windows.py.
struct Windows {
    int size_down, size_across, step_down, step_across, above, left;  // above, left: padding
    int height, width, down, across;                                  // of the map, and of the map of windows
};

// Computes rows [begin, end), the part of one thread.
struct Share {
    int64_t begin, end;
    Share(int64_t rows, int part, int parts) : begin(rows * part / parts), end(rows * (part + 1) / parts) {}
};

struct Loops {
    bool (*runs_here)();
    void (*moments[2])(const void *, Share, int, const float *, double *);
    void (*ends[2])(const void *, Share, int, double *, double *);
    void (*coded[2][2])(const void *, Share, int, const float *, const float *, const float *, const Rule &, void *);
    void (*settled[2])(const float *, Share, int, const Factors &, const Rule &, void *);
    void (*sums[2][2])(const void *, const void *, Share, int, const float *, const float *, const float *, const Rule &, double *);
    void (*back[2][2])(const void *, const void *, Share, int, const float *, const float *, const float *, const Rule &, const float *,
                       const float *, void *);
    void (*selected[2])(const void *, Share, int, const float *, const Windows &, float *, uint8_t *);
    void (*returned[2])(const float *, const uint8_t *, const void *, Share, int, const float *, const float *, const float *,
                        const Windows &, void *);
};
