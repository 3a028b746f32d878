// Matrix products of two values: (..., M, K) and (..., K, N) give (..., M, N). Sums in fp64, rounded once.
#pragma once
#include "wide.h"
#include <vector>

namespace {  // each instruction set has its own

constexpr int PRODUCT_ROWS = 4, PRODUCT_VECTORS = 3;  // sums that are kept in registers at once
constexpr int PRODUCT_BLOCK = PRODUCT_VECTORS * EIGHT;

// Numbers between neighbours along the inner axis of the factors and the last axis of the result. Values of two axes keep their
// last axis in the channels; others keep it in the columns, and a channel is a matrix.
struct Apart {
    int64_t one, other, result;
};

// The sums of some rows and PRODUCT_BLOCK columns. right: (inner, PRODUCT_BLOCK).
template <int ROWS> inline void product_block(const float *const *left, int64_t apart, const double *right, int inner, double *sums) {
    Doubles total[ROWS * PRODUCT_VECTORS];
    for (Doubles &each : total) each = Doubles{};
    for (int k = 0; k < inner; k++, right += PRODUCT_BLOCK) {
        Doubles w[PRODUCT_VECTORS];
        std::memcpy(w, right, sizeof w);
        for (int r = 0; r < ROWS; r++) {
            const Doubles x = all_of(left[r][k * apart], 0);
            for (int v = 0; v < PRODUCT_VECTORS; v++) total[r * PRODUCT_VECTORS + v] = added(total[r * PRODUCT_VECTORS + v], x, w[v]);
        }
    }
    std::memcpy(sums, total, sizeof total);
}

// One matrix of each factor; the pointers are those of its first number.
inline void product_of(const Step &step, uint8_t *arena, int begin, int end, int left, int right, int matrix, int columns, int inner, const Apart &apart, double *block) {
    for (int first = 0; first < columns; first += PRODUCT_BLOCK) {
        const int taken = columns - first < PRODUCT_BLOCK ? columns - first : PRODUCT_BLOCK;
        for (int k = 0; k < inner; k++) {
            const float *from = row_of<float>(step.other, arena, k) + right + first * apart.other;
            double *to = block + int64_t(k) * PRODUCT_BLOCK;
            for (int n = 0; n < taken; n++) to[n] = from[n * apart.other];
        }
        for (int row = begin; row < end; row += PRODUCT_ROWS) {
            const int rows = end - row < PRODUCT_ROWS ? end - row : PRODUCT_ROWS;
            const float *from[PRODUCT_ROWS];
            for (int r = 0; r < PRODUCT_ROWS; r++) from[r] = row_of<float>(step.source, arena, row + (r < rows ? r : 0)) + left;
            alignas(64) double sums[PRODUCT_ROWS * PRODUCT_BLOCK];
            product_block<PRODUCT_ROWS>(from, apart.one, block, inner, sums);
            for (int r = 0; r < rows; r++) {
                float *to = row_of<float>(step.result, arena, row + r) + matrix + first * apart.result;
                for (int n = 0; n < taken; n++) to[n * apart.result] = float(sums[r * PRODUCT_BLOCK + n]);
            }
        }
    }
}

// count: matrices of the result. spans: for each, the matrix of the first factor; then, that of the second. what: 1 if a channel is a matrix.
inline void product(const Step &step, uint8_t *arena, int begin, int end) {
    const bool stacked = step.what;
    const int columns = stacked ? step.result.columns : step.result.channels, inner = stacked ? step.source.columns : step.source.channels;
    const Apart apart = stacked ? Apart{step.source.pitch, step.other.pitch, step.result.pitch} : Apart{1, 1, 1};
    std::vector<double> block(size_t(inner) * PRODUCT_BLOCK);
    for (int matrix = 0; matrix < step.count; matrix++)
        product_of(step, arena, begin, end, step.spans[matrix], step.spans[step.count + matrix], matrix, columns, inner, apart, block.data());
}

}  // namespace
