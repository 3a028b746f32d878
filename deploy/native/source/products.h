// Matrix products of two values: (..., M, K) and (..., K, N) give (..., M, N). Sums in fp64, in order, rounded once.
#pragma once
#include "wide.h"
#include <vector>

namespace {  // each instruction set has its own

#ifdef __AVX512F__
constexpr int PRODUCT_SUMS = 24;  // vectors of sums that registers hold, beside a block's weights and a number
#else
constexpr int PRODUCT_SUMS = 6;  // a vector is several registers, of 16
#endif

// Numbers between neighbours along two axes of a matrix.
struct Apart {
    int64_t row, column;
};

// Copies (rows, columns) to fp64, `line` numbers to a row. A contiguous row is copied in vectors.
inline void widened(const float *from, Apart apart, int rows, int columns, double *to, int64_t line) {
    if (apart.column == 1)
        for (int r = 0; r < rows; r++) {
            const float *__restrict x = from + r * apart.row;
            double *__restrict y = to + r * line;
            for (int c = 0; c < columns; c++) y[c] = x[c];
        }
    else
        for (int c = 0; c < columns; c++)
            for (int r = 0; r < rows; r++) to[r * line + c] = from[r * apart.row + c * apart.column];
}

ALWAYS Doubles loaded(const double *at) {
    Doubles found;
    std::memcpy(&found, at, sizeof found);
    return found;
}

template <int VECTORS, int... R, int... V>
ALWAYS void add_products(Doubles *total, const double *left, int64_t line, const double *right, Indices<R...>, Indices<V...> all) {
    const Doubles w[] = {loaded(right + V * EIGHT)...};
    (add_number(total + R * VECTORS, all_of(left[R * line]), w, all), ...);
}

// The sums of ROWS rows and VECTORS vectors of columns. left: (ROWS, inner). right: (inner, VECTORS * EIGHT). Each vector is stored by
// itself: a copy of them all would keep them in memory.
template <int ROWS, int VECTORS, int... I> ALWAYS void product_block(const double *left, const double *right, int inner, double *sums, Indices<I...>) {
    Doubles total[] = {(void(I), Doubles{})...};
    for (int k = 0; k < inner; k++, right += VECTORS * EIGHT)
        add_products<VECTORS>(total, left + k, inner, right, std::make_integer_sequence<int, ROWS>(), std::make_integer_sequence<int, VECTORS>());
    (std::memcpy(sums + I * EIGHT, total + I, sizeof(Doubles)), ...);
}

// One matrix of each factor; the pointers are those of its first number.
struct Matrices {
    const float *one, *other;
    float *result;
};

class Products {
    const Step &step;
    const int rows, columns, inner;
    const Apart one, other, result;
    double *left, *right;

    static double *room(std::vector<double> &kept, int64_t count) {
        if (kept.size() < size_t(count)) kept.resize(count);
        return kept.data();
    }

    template <int ROWS, int VECTORS> void sums_of(const double *from, double *sums) const {
        product_block<ROWS, VECTORS>(from, right, inner, sums, std::make_integer_sequence<int, ROWS * VECTORS>());
    }

    // Some columns and all rows from `begin` to `end`. As many rows at once as registers hold.
    template <int VECTORS> void block(const Matrices &of, int begin, int end, int first, int taken) {
        constexpr int ROWS = PRODUCT_SUMS / VECTORS, WIDE = VECTORS * EIGHT;
        widened(of.other + first * other.column, other, inner, taken, right, WIDE);
        alignas(64) double sums[ROWS * WIDE];
        for (int row = begin; row < end; row += ROWS) {
            const int many = end - row < ROWS ? end - row : ROWS;
            const double *const from = left + int64_t(row - begin) * inner;
            many == 1 ? sums_of<1, VECTORS>(from, sums) : sums_of<ROWS, VECTORS>(from, sums);
            for (int r = 0; r < many; r++) {
                float *to = of.result + (row + r) * result.row + first * result.column;
                const double *each = sums + r * WIDE;
                if (result.column == 1)
                    for (int n = 0; n < taken; n++) to[n] = float(each[n]);
                else
                    for (int n = 0; n < taken; n++) to[n * result.column] = float(each[n]);
            }
        }
    }

  public:
    static constexpr int AT_ONCE = 96;  // rows that are kept in fp64, a multiple of the rows of each block

    explicit Products(const Step &of)
        : step(of), rows(of.kernel[0]), columns(of.kernel[1]), inner(of.depth), one{of.apart[0], of.apart[1]}, other{of.apart[2], of.apart[3]},
          result{of.apart[4], of.apart[5]} {
        thread_local std::vector<double> kept[2];
        left = room(kept[0], int64_t(AT_ONCE + PRODUCT_SUMS) * inner);
        right = room(kept[1], int64_t(inner) * 4 * EIGHT);
    }

    int parts() const { return (rows + AT_ONCE - 1) / AT_ONCE; }
    void part(uint8_t *arena, int matrix, int number) {
        auto at = [&](const Value &v, int which) { return reinterpret_cast<float *>(arena + v.at) + step.spans[which * step.count + matrix]; };
        const Matrices of{at(step.source, 0), at(step.other, 1), at(step.result, 2)};
        const int begin = number * AT_ONCE, end = rows - begin < AT_ONCE ? rows : begin + AT_ONCE;
        widened(of.one + begin * one.row, one, end - begin, inner, left, inner);
        for (int first = 0; first < columns;) {
            const int taken = columns - first;
            if (taken > 3 * EIGHT) block<4>(of, begin, end, first, taken < 4 * EIGHT ? taken : 4 * EIGHT);
            else if (taken > 2 * EIGHT) block<3>(of, begin, end, first, taken);
            else if (taken > EIGHT) block<2>(of, begin, end, first, taken);
            else block<1>(of, begin, end, first, taken);
            first += 4 * EIGHT;
        }
    }
};

// count: matrices of the result. spans: the first number of each matrix, of the first factor, of the second, of the result.
// kernel: rows and columns of the result. depth: the inner axis. Threads share matrices and parts of their rows.
inline void product(const Step &step, uint8_t *arena, int begin, int end) {
    Products products(step);
    const int64_t many = products.parts(), all = step.count * many, rows = step.result.rows;
    for (int64_t i = all * begin / rows; i < all * end / rows; i++) products.part(arena, int(i / many), int(i % many));
}

}  // namespace
