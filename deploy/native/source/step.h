// The engine's input: values in memory, and steps that compute a value from others. deploy/native/steps.py mirrors it.
#pragma once
#include <cstdint>

enum Kind : int32_t { FLOAT = 0, BYTE = 1, SHORT = 2, BITS = 3, WHOLE = 4 };

// A value of one picture: (rows, columns, channels), with a border around it that layers may read.
// FLOAT: fp32 numbers. BYTE: codes minus the lowest code. SHORT: codes. BITS: planes of one bit a channel, in words of 32.
// WHOLE: integers of 32 bits.
struct Value {
    int64_t at;                          // bytes from the start of the arena
    int32_t kind;
    int32_t rows, columns, channels;
    int32_t pitch;                       // numbers (for BITS: words) from one column to the next
    int32_t top, left, bottom, right;    // the border
    int32_t zero;                        // the number in the border
};

enum Operation : int32_t {
    MOVE = 0, LAYER = 1, DEPTHWISE = 2, SIGNS = 3, WIDE = 4, QUANTIZE = 5, DECODE = 6, AFFINE = 7, FUNCTION = 8,
    SLOPES = 9, COMBINE = 10, MAXPOOL = 11, AVERAGE = 12, SPANS = 13, REFERENCE = 14, SOFTMAX = 15,
    TOTALS = 16, THREES = 17, REDUCE = 18, STANDARDIZE = 19, PRODUCT = 20, OVER = 21, TRANSPOSED = 22,
    BILINEAR = 23,
};

// Runs of numbers that are contiguous before and after a move, `many` of them at equal distances; from -1: the fill, numbers[0].
struct Run {
    int64_t from, to, count, many, from_step, to_step;
};

struct Step {
    int32_t operation;
    int32_t what;                        // which function, combination, reduction; AFFINE, SLOPES: see `scale`; LAYER: 0 pairs of shorts, 1 fours of bytes, 2 tiles; DEPTHWISE: see depthwise.h
    Value source, other, result;
    int32_t kernel[2], stride[2], padding[2], dilation[2];   // padding: above and left
    int32_t outputs;                     // of each group, rounded up to a multiple that the kernel computes at once
    int32_t groups;
    int64_t count;                       // of offsets for each group, of runs, of matrices, or of numbers that OVER reduces to one
    int32_t depth;                       // LAYER with bytes: fours whose sum 16 bits hold; with tiles: bytes of a piece; SIGNS: |weight|, the value of a bit
    int32_t joined;                      // LAYER with tiles: pieces in a row of a tile
    int32_t factor;                      // LAYER with `each`: weights are factor * stored + each, `other` holds the windows' totals
    int32_t threes;                      // SIGNS: how many of the offsets, the first ones, are of threes of words; see threes.h
    int32_t parts, planes, line;         // DEPTHWISE with fours of taps: parts and planes of the weights, places in a line; see depthwise.h
    int32_t apart[6];                    // PRODUCT: numbers between rows and between columns of the first factor, the second, the result
    int32_t coded;                       // layers: whether the result is in codes
    float inverse, low, high, edge;      // the grid of codes: Steps, or Signs if `signs` is 1
    int32_t signs;
    float numbers[2];                    // settings of a function; the fill of a move
    const int32_t *offsets;              // OVER: see over.h; layers: bytes (of BITS: words) from the first place that a window reads
    const void *weight;
    const int32_t *bias;
    const int32_t *each;                 // LAYER: for each output; null: none
    const float *scale, *shift;          // layers, AFFINE, SLOPES; null: none. Of AFFINE and SLOPES one for each row (what 0), column (1) or channel (2)
    const double *divisors;              // AVERAGE: for each window; STANDARDIZE: eps; BILINEAR: see between.h
    const int32_t *spans;                // SPANS: start and end of each row of windows, then of each column; PRODUCT: see products.h; OVER: see over.h; BILINEAR: see between.h; COMBINE: see numbers.h; SIGNS: see signs.h
    int64_t kinds;                       // SIGNS: rows of base
    const int32_t *base;                 // SIGNS: sums of windows in which no bit differs, see signs.h
    const int32_t *limits;               // SIGNS with a result in BITS: the most bits that may differ to reach the bound; null if the source may be 0
    const int32_t *bounds;               // result in BITS: the sums from which results are positive; then, from which they are negative
    const uint32_t *flips;               // a bit for each bound: 1 if the sums below it are meant instead
    const Run *runs;
};

// Computes rows [begin, end) of a step's result. A move is done as a whole by the call with row 0.
typedef void (*Rows)(const Step &step, uint8_t *arena, int begin, int end);

struct Kernels {
    const char *name;
    int32_t width, vectors;   // channels in a vector and vectors in a block, for the weight layout
    int32_t counted;          // outputs whose bits are counted at once
    int32_t depthwise_lanes;  // channels of a depthwise layer that are summed at once, four taps at a time; 0: no such kernel
    int32_t whole;            // whether byte products are added in 32 bits
    int32_t tiles;            // whether layers on bytes may use tiles, see tiles.h
    double (*peak)(int32_t bits, double seconds);  // multiply-accumulates per second, see peak.h
    Rows table[24];
};
