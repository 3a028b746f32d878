// The table of an instruction set: the file that includes this says which Lanes and Counts it has.
#pragma once
#include "numbers.h"
#include "signs.h"

namespace {  // each instruction set has its own

template <class Lanes, class Counts> Kernels kernels(const char *name) {
    return {name, {move, layer<Lanes>, depthwise, signs<Counts>, wide, quantize, decode, affine, function, slopes, combine,
                   max_pool, average_pool, span_pool, nullptr, softmax}};
}

}  // namespace
