// Elementwise functions as deploy/reference/functions.py defines them: single fp64 operations, rounded to fp32 once.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {  // each instruction set has its own

enum Name : int32_t {
    ABS = 0, CEIL, CLAMP, ELU, ERF, EXP, EXPM1, FLOOR, GELU, GELU_TANH, HARDSIGMOID, HARDSWISH, LEAKY_RELU, LOG, LOG1P, MISH, RELU,
    ROUND, SIGMOID, SIGN, SILU, SQRT, TANH,
};

inline double half_even(double x) {  // |x| below 2^51
    const double magic = 6755399441055744.0;
    return (x + magic) - magic;
}

inline double clamped(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

inline double exp_of(double x) {
    static const double taylor[] = {
        1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0,
        1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0,
    };
    x = clamped(x, -700.0, 700.0);
    const double n = half_even(x * (1 / 0.6931471805599453));
    double r = x - n * 0x1.62e42fee00000p-1;
    r = r - n * 1.9082149292705877e-10;
    double result = taylor[0];
    for (int i = 1; i < 14; i++) {
        result = result * r;
        result = result + taylor[i];
    }
    const int64_t bits = (int64_t(n) + 1023) << 52;
    double power;
    std::memcpy(&power, &bits, sizeof power);
    return result * power;
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

inline double power_of(double x, double y) {
    if (y == 0) return 1;
    const double size = exp_of(y * log_of(std::fabs(x)));
    if (!(x < 0)) return size;
    return std::floor(y) != y ? NAN : std::floor(y / 2) * 2 == y ? size : -size;
}

inline double erf_of(double x) {
    static const double factors[] = {1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592};
    const double size = std::fabs(x), t = 1 / (size * 0.3275911 + 1);
    double result = factors[0];
    for (int i = 1; i < 5; i++) {
        result = result * t;
        result = result + factors[i];
    }
    result = 1 - (result * t) * exp_of(-(size * size));
    return x < 0 ? -result : result;
}

inline double sigmoid_of(double x) { return 1 / (exp_of(-x) + 1); }

inline double tanh_of(double x) {
    const double twice = exp_of(clamped(x, -20, 20) * 2);
    return (twice - 1) / (twice + 1);
}

inline double mish_of(double x) {
    const double power = exp_of(x > 20 ? 20 : x), n = power * (power + 2);
    return x * (n / (n + 2));
}

inline double gelu_of(double x) { return (x * 0.5) * (erf_of(x * 0.7071067811865476) + 1); }

inline double gelu_tanh_of(double x) {
    const double cube = (x * x) * x;
    return (x * 0.5) * (tanh_of((cube * 0.044715 + x) * 0.7978845608028654) + 1);
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

template <int NAME> inline float function_of(float x, const float *settings) {
    const double wide = x;
    switch (NAME) {
        case ABS: return std::fabs(x);
        case CEIL: return std::ceil(x);
        case CLAMP: {  // if low > high, the result is high
            const float y = x < settings[0] ? settings[0] : x;
            return y > settings[1] ? settings[1] : y;
        }
        case ELU: return float(wide > 0 ? wide : (exp_of(wide < 0 ? wide : 0) - 1) * double(settings[0]));
        case ERF: return float(erf_of(wide));
        case EXP: return float(exp_of(wide));
        case EXPM1: return float(exp_of(wide) - 1);
        case FLOOR: return std::floor(x);
        case GELU: return float(gelu_of(wide));
        case GELU_TANH: return float(gelu_tanh_of(wide));
        case HARDSIGMOID: return float(hardsigmoid_of(wide));
        case HARDSWISH: return float(wide * hardsigmoid_of(wide));
        case LEAKY_RELU: return x > 0 ? x : x * settings[0];
        case LOG: return float(log_of(wide));
        case LOG1P: return float(log_of(wide + 1));
        case MISH: return float(mish_of(wide));
        case RELU: return x > 0 ? x : 0;
        case ROUND: return std::nearbyint(x);  // half to even
        case SIGMOID: return float(sigmoid_of(wide));
        case SIGN: return float((x > 0) - (x < 0));
        case SILU: return float(wide * sigmoid_of(wide));
        case SQRT: return float(std::sqrt(wide));
        default: return float(tanh_of(wide));
    }
}

}  // namespace
