// The kernel table of an instruction set; the including file defines Lanes and Counts.
#pragma once
#include "along.h"
#include "between.h"
#include "depthwise.h"
#include "moves.h"
#include "numbers.h"
#include "over.h"
#include "pools.h"
#include "peak.h"
#include "products.h"
#include "signs.h"
#include "transposed.h"
#include "wide.h"

namespace {  // each instruction set has its own

template <class Lanes, class Counts> constexpr Kernels kernels(const char *name) {
    return {name, Lanes::WIDTH, BLOCK, Counts::WIDTH, Lanes::DEPTHWISE_LANES, Lanes::WHOLE, 0, peak<Lanes, Counts>,
            {move, layer<Lanes>, depthwise<Lanes>, signs<Lanes, Counts>, wide<Lanes>, quantize<Lanes>, decode, affine, function, slopes, combine,
             max_pool, average_pool, span_pool, nullptr, softmax, totals, threes, reduce, standardize, product, over, transposed, bilinear}};
}

}  // namespace
