// Elementwise functions as deploy/reference/functions.py defines them: single fp64 operations, rounded to fp32 once.
#pragma once
#include "vectors.h"
#include <cmath>

namespace {  // each instruction set has its own

enum Name : int32_t {
    ABS = 0, CEIL, CLAMP, ELU, ERF, EXP, EXPM1, FLOOR, GELU, GELU_TANH, HARDSIGMOID, HARDSWISH, LEAKY_RELU, LOG, LOG1P, MISH, RELU,
    ROUND, SIGMOID, SIGN, SILU, SQRT, TANH,
};

// A sum with it, for |x| below 2^51, is rounded to a whole number, half to even, whose low bits are the sum's.
constexpr double WIDE_MAGIC = 6755399441055744.0;

inline double clamped(double x, double low, double high) { return x < low ? low : x > high ? high : x; }
template <class Real> ALWAYS Real clamped_as(Real x, double low, double high) {
    const Real least = Everywhere<Real>::of(low), most = Everywhere<Real>::of(high);
    return if_less(x, least, least, if_less(most, x, most, x));
}

// Real: double, Doubles, or pairs of them.
template <class Real> ALWAYS Real exp_of(Real x) {
    x = clamped_as(x, -700.0, 700.0);
    const Real shifted = x * (1 / 0.6931471805599453) + WIDE_MAGIC, n = shifted - WIDE_MAGIC;
    Real r = x - n * 0x1.62e42fee00000p-1;
    r = r - n * 1.9082149292705877e-10;
    Real y = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
    y = y * r + 1.0 / 39916800.0;
    y = y * r + 1.0 / 3628800.0;
    y = y * r + 1.0 / 362880.0;
    y = y * r + 1.0 / 40320.0;
    y = y * r + 1.0 / 5040.0;
    y = y * r + 1.0 / 720.0;
    y = y * r + 1.0 / 120.0;
    y = y * r + 1.0 / 24.0;
    y = y * r + 1.0 / 6.0;
    y = y * r + 0.5;
    y = y * r + 1.0;
    y = y * r + 1.0;
    return y * power_of(shifted);
}

inline double log_of_finite(double x) {  // positive and normal
    static const double artanh[] = {
        1 / 23.0, 1 / 21.0, 1 / 19.0, 1 / 17.0, 1 / 15.0, 1 / 13.0, 1 / 11.0, 1 / 9.0, 1 / 7.0, 1 / 5.0, 1 / 3.0, 1.0,
    };
    int n;
    double m = std::frexp(x, &n);
    if (m < 0.7071067811865476) m = m * 2, n--;
    const double part = (m - 1) / (m + 1), square = part * part;
    double result = artanh[0];
    for (int i = 1; i < 12; i++) {
        result = result * square;
        result = result + artanh[i];
    }
    return double(n) * 0.6931471805599453 + (part * 2) * result;
}

inline double log_of(double x) {
    if (x > 0 && x < INFINITY) return log_of_finite(x);
    return x == 0 ? -INFINITY : x > 0 ? INFINITY : NAN;
}

inline double raised(double x, double y) {
    if (y == 0) return 1;
    const double size = exp_of(y * log_of(std::fabs(x)));
    const bool is_whole = std::floor(y) == y, is_odd = is_whole && std::floor(y / 2) * 2 != y;
    if (x < 0 && !is_whole) return NAN;
    return is_odd && std::signbit(x) ? -size : size;
}

template <class Real> ALWAYS Real erf_of(Real x) {
    const Real zero{}, size = if_less(x, zero, -x, x), t = 1.0 / (size * 0.3275911 + 1.0);
    Real y = t * 1.061405429 + -1.453152027;
    y = y * t + 1.421413741;
    y = y * t + -0.284496736;
    y = y * t + 0.254829592;
    y = 1.0 - (y * t) * exp_of(-(size * size));
    return if_less(x, zero, -y, y);
}

template <class Real> ALWAYS Real sigmoid_of(Real x) { return 1.0 / (exp_of(-x) + 1.0); }

template <class Real> ALWAYS Real tanh_of(Real x) {
    const Real twice = exp_of(clamped_as(x, -20, 20) * 2.0);
    return (twice - 1.0) / (twice + 1.0);
}

template <class Real> ALWAYS Real mish_of(Real x) {
    const Real most = Everywhere<Real>::of(20), power = exp_of(if_less(most, x, most, x)), n = power * (power + 2.0);
    return x * (n / (n + 2.0));
}

template <class Real> ALWAYS Real gelu_of(Real x) { return (x * 0.5) * (erf_of(x * 0.7071067811865476) + 1.0); }

template <class Real> ALWAYS Real gelu_tanh_of(Real x) {
    const Real cube = (x * x) * x;
    return (x * 0.5) * (tanh_of((cube * 0.044715 + x) * 0.7978845608028654) + 1.0);
}

template <class Real> ALWAYS Real elu_of(Real x, double alpha) {
    const Real zero{};
    return if_less(zero, x, x, (exp_of(if_less(x, zero, x, zero)) - 1.0) * alpha);
}

// x / 6, rounded once. With fused multiply-add: the quotient by the rounded 1/6, corrected by its exact remainder.
inline double sixth_of(double x) {
#ifdef __FMA__
    const double near = x * (1.0 / 6);
    return __builtin_fma(__builtin_fma(-6.0, near, x), 1.0 / 6, near);
#else
    return x / 6;
#endif
}

inline double hardsigmoid_of(double x) { return sixth_of(clamped(x + 3, 0, 6)); }

// Functions that compute exp, in fp64.
constexpr bool has_exp(int name) {
    return name == ELU || name == ERF || name == EXP || name == EXPM1 || name == GELU || name == GELU_TANH || name == MISH || name == SIGMOID
        || name == SILU || name == TANH;
}

template <int NAME, class Real> ALWAYS Real with_exp(Real x, const float *settings) {
    if constexpr (NAME == ELU) return elu_of(x, double(settings[0]));
    else if constexpr (NAME == ERF) return erf_of(x);
    else if constexpr (NAME == EXP) return exp_of(x);
    else if constexpr (NAME == EXPM1) return exp_of(x) - 1.0;
    else if constexpr (NAME == GELU) return gelu_of(x);
    else if constexpr (NAME == GELU_TANH) return gelu_tanh_of(x);
    else if constexpr (NAME == MISH) return mish_of(x);
    else if constexpr (NAME == SIGMOID) return sigmoid_of(x);
    else if constexpr (NAME == SILU) return x * sigmoid_of(x);
    else return tanh_of(x);
}

template <int NAME> inline float function_of(float x, const float *settings) {
    const double wide = x;
    if constexpr (has_exp(NAME)) return float(with_exp<NAME>(wide, settings));
    switch (NAME) {
        case ABS: return std::fabs(x);
        case CEIL: return std::ceil(x);
        case CLAMP: {  // if low > high, the result is high
            const float y = x < settings[0] ? settings[0] : x;
            return y > settings[1] ? settings[1] : y;
        }
        case FLOOR: return std::floor(x);
        case HARDSIGMOID: return float(hardsigmoid_of(wide));
        case HARDSWISH: return float(wide * hardsigmoid_of(wide));
        case LEAKY_RELU: return x > 0 ? x : x * settings[0];
        case LOG: return float(log_of(wide));
        case LOG1P: return float(log_of(wide + 1));
        case RELU: return x > 0 ? x : 0;
        case ROUND: return std::nearbyint(x);  // half to even
        case SIGN: return float((x > 0) - (x < 0));
        default: return float(std::sqrt(wide));
    }
}

template <int NAME> inline void functions_of(const float *__restrict x, float *__restrict y, int count, const float *settings) {
    int c = 0;
    if constexpr (has_exp(NAME))
        for (; c + MANY <= count; c += MANY) {
            Many wide;
            load(x + c, wide);
            store(with_exp<NAME>(wide, settings), y + c);
        }
    for (; c < count; c++) y[c] = function_of<NAME>(x[c], settings);
}

}  // namespace
