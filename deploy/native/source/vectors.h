// Numbers that are computed at once. One vector's steps wait for each other, so several vectors take turns, step by step.
#pragma once
#include <cstdint>
#include <cstring>

#ifndef ALWAYS
#define ALWAYS inline __attribute__((always_inline))
#endif

namespace {  // each instruction set has its own

constexpr int EIGHT = 8;  // numbers in a vector
typedef double Doubles __attribute__((vector_size(EIGHT * sizeof(double))));
typedef uint64_t Words __attribute__((vector_size(EIGHT * sizeof(uint64_t))));
typedef float Floats __attribute__((vector_size(EIGHT * sizeof(float))));

template <class T> struct Pair {
    T a, b;
};

#define OPERATOR(OP) \
    template <class T> ALWAYS Pair<T> operator OP(Pair<T> x, Pair<T> y) { return {x.a OP y.a, x.b OP y.b}; } \
    template <class T> ALWAYS Pair<T> operator OP(Pair<T> x, double y) { return {x.a OP y, x.b OP y}; } \
    template <class T> ALWAYS Pair<T> operator OP(double x, Pair<T> y) { return {x OP y.a, x OP y.b}; }
OPERATOR(+)
OPERATOR(-)
OPERATOR(*)
OPERATOR(/)
#undef OPERATOR
template <class T> ALWAYS Pair<T> operator-(Pair<T> x) { return {-x.a, -x.b}; }

// The same number everywhere.
template <class T> struct Everywhere {
    ALWAYS static T of(double x) { return T{} + x; }
};
template <class T> struct Everywhere<Pair<T>> {
    ALWAYS static Pair<T> of(double x) { return {Everywhere<T>::of(x), Everywhere<T>::of(x)}; }
};

// x < y ? one : other, number by number.
ALWAYS double if_less(double x, double y, double one, double other) { return x < y ? one : other; }
ALWAYS Doubles if_less(Doubles x, Doubles y, Doubles one, Doubles other) { return x < y ? one : other; }
template <class T> ALWAYS Pair<T> if_less(Pair<T> x, Pair<T> y, Pair<T> one, Pair<T> other) {
    return {if_less(x.a, y.a, one.a, other.a), if_less(x.b, y.b, one.b, other.b)};
}

// 2^n of the whole number n in the low bits of `shifted`, from -1022 on.
template <class Bits, class T> ALWAYS T power_as(T shifted) {
    Bits bits;  // without a conversion, which few instruction sets have in vectors
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023) << 52;
    std::memcpy(&shifted, &bits, sizeof bits);
    return shifted;
}
ALWAYS double power_of(double shifted) { return power_as<uint64_t>(shifted); }
ALWAYS Doubles power_of(Doubles shifted) { return power_as<Words>(shifted); }
template <class T> ALWAYS Pair<T> power_of(Pair<T> shifted) { return {power_of(shifted.a), power_of(shifted.b)}; }

#ifdef __AVX512F__
typedef Pair<Pair<Doubles>> Many;
#elif defined(__AVX2__)
typedef Pair<Doubles> Many;
#else
typedef Doubles Many;
#endif
constexpr int MANY = sizeof(Many) / sizeof(double);

ALWAYS void load(const float *from, Doubles &to) {
    Floats found;
    std::memcpy(&found, from, sizeof found);
    to = __builtin_convertvector(found, Doubles);
}
template <class T> ALWAYS void load(const float *from, Pair<T> &to) {
    load(from, to.a);
    load(from + sizeof(T) / sizeof(double), to.b);
}
ALWAYS void store(Doubles from, float *to) {
    const Floats found = __builtin_convertvector(from, Floats);
    std::memcpy(to, &found, sizeof found);
}
template <class T> ALWAYS void store(Pair<T> from, float *to) {
    store(from.a, to);
    store(from.b, to + sizeof(T) / sizeof(double));
}

}  // namespace
