// Vectors of fp32 numbers, loaded from fp32 or bf16, as wide as the vectors of the instruction set.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__FMA__)
#include <immintrin.h>
#endif

#include "table.h"

#define ALWAYS __attribute__((always_inline)) inline
#define ALWAYS_LAMBDA __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef uint32_t Bits __attribute__((vector_size(LANES * 4)));
typedef uint16_t Shorts __attribute__((vector_size(LANES * 2)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef int32_t Integers __attribute__((vector_size(LANES * 4)));

ALWAYS Vector all(float x) { return Vector{} + x; }
ALWAYS Vector widened(Shorts held) { return reinterpret_cast<Vector>(__builtin_convertvector(held, Bits) << 16); }

ALWAYS Vector load(const float *at, int count) {
    Vector x{};
    if (count == LANES) std::memcpy(&x, at, sizeof x);
    else for (int n = 0; n < count; n++) x[n] = at[n];
    return x;
}
ALWAYS Vector load(const Half *at, int count) {
    Shorts held{};
    if (count == LANES) std::memcpy(&held, at, sizeof held);
    else for (int n = 0; n < count; n++) held[n] = at[n].bits;
    return widened(held);
}
ALWAYS void store(float *to, Vector x, int count) {
    if (count == LANES) std::memcpy(to, &x, sizeof x);
    else for (int n = 0; n < count; n++) to[n] = x[n];
}
// Rounds half to even; NaN stays NaN.
ALWAYS void store(Half *to, Vector x, int count) {
    const Bits bits = reinterpret_cast<Bits>(x);
    Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    rounded = x == x ? rounded : (Bits{} + 0x7fc0);
    const Shorts held = __builtin_convertvector(rounded, Shorts);
    if (count == LANES) std::memcpy(to, &held, sizeof held);
    else for (int n = 0; n < count; n++) to[n].bits = held[n];
}

ALWAYS Bits load(const uint8_t *at, int count) {
    Bytes held{};
    if (count == LANES) std::memcpy(&held, at, sizeof held);
    else for (int n = 0; n < count; n++) held[n] = at[n];
    return __builtin_convertvector(__builtin_convertvector(held, Shorts), Bits);  // in one step GCC takes each number apart
}
ALWAYS void store(uint8_t *to, Bits x, int count) {
    const Bytes held = __builtin_convertvector(__builtin_convertvector(x, Shorts), Bytes);
    if (count == LANES) std::memcpy(to, &held, sizeof held);
    else for (int n = 0; n < count; n++) to[n] = held[n];
}
// Codes of 8 bits, with or without a sign; NaN becomes 0, as where torch converts it.
ALWAYS void store(uint8_t *to, Vector x, int count) {
    const Vector codes = x == x ? x : Vector{};
    store(to, reinterpret_cast<Bits>(__builtin_convertvector(codes, Integers)), count);
}

// x * a + b, rounded once if the instruction set can, as torch's own code for this set does.
ALWAYS Vector plus(Vector x, Vector a, Vector b) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vector>(_mm512_fmadd_ps(reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(__AVX2__) && defined(__FMA__)
    return reinterpret_cast<Vector>(_mm256_fmadd_ps(reinterpret_cast<__m256>(x), reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
    return x * a + b;
#endif
}
ALWAYS Vector size(Vector x) { return reinterpret_cast<Vector>(reinterpret_cast<Bits>(x) & 0x7fffffffu); }
ALWAYS Vector between(Vector x, float low, float high) {  // NaN stays NaN
    x = x < low ? all(low) : x;
    return x > high ? all(high) : x;
}
// Rounds half to even. Only for numbers below 2^22: larger fp32 numbers have no fraction of a half.
ALWAYS Vector nearest(Vector x) {
    constexpr float MIDDLE = 12582912.0f;  // 1.5 * 2^23
    return (x + MIDDLE) - MIDDLE;
}

}  // namespace
