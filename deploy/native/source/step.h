// What the engine is told: values in memory and steps that compute one from others. deploy/native/steps.py mirrors it.
#pragma once
#include <cstdint>

enum Kind : int32_t { FLOAT = 0, BYTE = 1, SHORT = 2, BITS = 3, WHOLE = 4 };

// A value of one picture: rows of columns of channels, with a border around it that layers may read.
// FLOAT fp32 numbers; BYTE codes less the lowest one; SHORT codes; BITS planes of one bit a channel, in words of 64;
// WHOLE numbers of 32 bits.
struct Value {
    int64_t at;                          // bytes from the begin of the arena
    int32_t kind;
    int32_t rows, columns, channels;
    int32_t pitch;                       // numbers (of BITS: words) from one column to the next
    int32_t top, left, bottom, right;    // the border
    int32_t zero;                        // what stands in the border
};

enum Operation : int32_t {
    MOVE = 0, LAYER = 1, DEPTHWISE = 2, SIGNS = 3, WIDE = 4, QUANTIZE = 5, DECODE = 6, AFFINE = 7, FUNCTION = 8,
    SLOPES = 9, COMBINE = 10, MAXPOOL = 11, AVERAGE = 12, SPANS = 13, REFERENCE = 14, SOFTMAX = 15,
    TOTALS = 16,
};

// One run of numbers that lie side by side before and after a move; from -1: `fill`.
struct Run {
    int64_t from, to, count;
};

struct Step {
    int32_t operation;
    int32_t what;                        // which function, combination, reduction; of LAYER: 0 pairs of shorts, 1 fours of bytes, 2 tiles
    Value source, other, result;
    int32_t kernel[2], stride[2], padding[2], dilation[2];   // padding: above and left
    int32_t outputs;                     // of each group, rounded up to what the kernel takes at once
    int32_t groups;
    int64_t count;                       // of offsets for each group, or of runs
    int32_t depth;                       // of LAYER with bytes: fours that 16 bits hold the sum of; with tiles: bytes of a piece; of SIGNS: what a bit counts
    int32_t joined;                      // of LAYER with tiles: pieces that lie side by side in a tile
    int32_t factor;                      // of LAYER with `each`: weights are factor * what is stored + each, `other` holds the windows' totals
    int32_t coded;                       // of a layer: whether it gives codes
    float inverse, low, high, edge;      // of codes: Steps, or Signs where `signs`
    int32_t signs;
    float numbers[2];                    // settings of a function; the fill of a move
    const int32_t *offsets;              // bytes (of BITS: words) from the first place that a window reads
    const void *weight;
    const int32_t *bias;
    const int32_t *each;                 // of LAYER, for each output; null: none
    const float *scale, *shift;          // of a layer, AFFINE, SLOPES; null: none
    const double *divisors;              // of AVERAGE, for each window
    const int32_t *spans;                // of SPANS: begin and end of each row of windows, then of each column; of SIGNS see signs.h
    int64_t kinds;                       // of SIGNS: rows of base
    const int32_t *base;                 // of SIGNS: what windows sum if no bit differs, see signs.h
    const int64_t *limits;               // of SIGNS to BITS: bits that may differ at most, for bounds; null where the source may be 0
    const int32_t *bounds;               // of a result in BITS: sums from here on are positive; then: are negative
    const uint64_t *flips;               // where it is the sums below the bound instead, a bit each
    const Run *runs;
};

// Computes rows [begin, end) of a step's result. Moves: all of it, by whoever has row 0.
typedef void (*Rows)(const Step &step, uint8_t *arena, int begin, int end);

struct Kernels {
    const char *name;
    int32_t width, vectors;   // channels a vector, and vectors of a block: how weights are laid out
    int32_t counted;          // outputs whose bits are counted at once
    int32_t apart;            // channels of a depthwise layer that are summed at once, four taps at a time; 0: not so
    int32_t whole;            // whether sums of products of bytes are kept in 32 bits
    int32_t tiles;            // whether layers on bytes may come in tiles, see tiles.h
    double (*peak)(int32_t bits, double seconds);  // multiply-accumulates a second, see peak.h
    Rows table[17];
};
