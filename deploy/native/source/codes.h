// From sums to a layer's results, and from numbers to codes: single fp32 operations in the order of the reference.
#pragma once
#include "spots.h"

#define ALWAYS inline __attribute__((always_inline))

namespace {  // each instruction set has its own

// Adding it to a number within +-2^22 rounds half to even and leaves the integer in the lowest bits.
constexpr float MAGIC = 12582912.0f;

// The parameters of a step's grid, in registers.
struct Coding {
    const float inverse, low, high;
    explicit Coding(const Step &step) : inverse(step.inverse), low(step.low), high(step.high) {}

    // x in steps, clamped to the range of codes. Clamping before rounding gives the same result, as the ends are integers.
    float clamped(float x) const {
        float y = x * inverse;
        y = y > low ? y : low;
        return y < high ? y : high;
    }
};

inline int32_t four_bytes(const uint8_t *at) {
    int32_t four;
    std::memcpy(&four, at, 4);
    return four;
}

inline float sign_of(const Step &step, float x) {
    if (step.edge < 0) return x >= 0 ? 1.0f : -1.0f;
    return float(x > step.edge) - float(x < -step.edge);
}

template <class T> inline T stored(float code, int32_t zero);
template <> inline float stored<float>(float code, int32_t) { return code; }
template <> inline uint8_t stored<uint8_t>(float code, int32_t zero) { return uint8_t(int32_t(code) + zero); }
template <> inline int16_t stored<int16_t>(float code, int32_t) { return int16_t(int32_t(code)); }

// The stored code of a number. The lowest 16 bits of MAGIC are 0.
template <class T> inline T stored_code(const Coding &coding, float x, int32_t zero) {
    const float y = coding.clamped(x) + MAGIC;
    int32_t bits;
    std::memcpy(&bits, &y, 4);
    return T(bits + zero);
}
template <> inline float stored_code<float>(const Coding &coding, float x, int32_t) {
    return (coding.clamped(x) + MAGIC) - MAGIC;
}

enum After : int { NUMBERS = 0, CODES, SIGN_CODES };

// Turns the sums of channels from `first` on into results at one place. COUNT: the number of channels; 0: `count`.
template <class T, int COUNT, bool SCALED, bool SHIFTED, int AFTER>
ALWAYS void finish_as(const Step &step, const int32_t *__restrict sums, int first, int count, T *__restrict to) {
    const Coding coding(step);
    const int32_t zero = step.result.zero, *__restrict bias = step.bias + first;
    const float *__restrict scale = step.scale + first, *__restrict shift = step.shift + first;
    to += first;
    for (int i = 0; i < (COUNT ? COUNT : count); i++) {
        float y = float(int32_t(uint32_t(sums[i]) + uint32_t(bias[i])));
        if (SCALED) y = y * scale[i];
        if (SHIFTED) y = y + shift[i];
        if (AFTER == SIGN_CODES) y = sign_of(step, y);
        to[i] = AFTER == CODES ? stored_code<T>(coding, y, zero) : stored<T>(y, zero);
    }
}

template <class T, int COUNT, int AFTER>
ALWAYS void finish_after(const Step &step, const int32_t *sums, int first, int count, T *to) {
    if (step.scale && step.shift) finish_as<T, COUNT, true, true, AFTER>(step, sums, first, count, to);
    else if (step.scale) finish_as<T, COUNT, true, false, AFTER>(step, sums, first, count, to);
    else if (step.shift) finish_as<T, COUNT, false, true, AFTER>(step, sums, first, count, to);
    else finish_as<T, COUNT, false, false, AFTER>(step, sums, first, count, to);
}

template <class T, int COUNT> inline void finish(const Step &step, const int32_t *sums, int first, int count, T *to) {
    if (step.coded) {
        if (step.signs) finish_after<T, COUNT, SIGN_CODES>(step, sums, first, count, to);
        else finish_after<T, COUNT, CODES>(step, sums, first, count, to);
    } else finish_after<T, COUNT, NUMBERS>(step, sums, first, count, to);
}

constexpr int WORD = 32;

inline int words_of(int channels) { return (channels + WORD - 1) / WORD; }

// Stores the bits of at most 64 channels from `first` on. Kernels give a place's channels in rising order, so a word's
// first bits overwrite it.
ALWAYS void set_bits(uint32_t *to, int first, int count, uint64_t bits) {
    const int shift = first % WORD;
    to += first / WORD;
    if (shift) {
        *to++ |= uint32_t(bits << shift);
        bits >>= WORD - shift;
        count -= WORD - shift;
    }
    for (; count > 0; count -= WORD, bits >>= WORD) *to++ = uint32_t(bits);
}

ALWAYS uint64_t bits_of(const uint32_t *from, int first, int count) {
    const int shift = first % WORD;
    from += first / WORD;
    uint64_t found = *from++ >> shift;
    for (int have = WORD - shift; have < count; have += WORD) found |= uint64_t(*from++) << have;
    return count < 64 ? found & ((uint64_t(1) << count) - 1) : found;
}

// Stores the signs of sums at several places, one bit each: whether a sum has reached its bound, inverted if `flips` has a 1.
// A place has `wide` sums, at most 64, of which the first `left` channels exist.
template <class Lanes>
ALWAYS void finish_bits(const Step &step, const int32_t *sums, int wide, int first, int left, uint8_t *arena, const Spot *spots, int places) {
    const int words = words_of(step.result.channels), count = left < wide ? left : wide;
    const uint64_t all = ~uint64_t(0) >> (64 - count), flips = bits_of(step.flips, first, count);
    const int32_t *const bias = step.bias + first, *const bounds = step.bounds + first, *const lower = bounds + step.result.channels + Lanes::WIDTH;
    const uint64_t lower_flips = step.edge < 0 ? 0 : bits_of(step.flips + words, first, count);
    auto reached = [&](const int32_t *of, const int32_t *from) {
        uint64_t found = 0;
        for (int i = 0; i < count; i += Lanes::WIDTH) found |= uint64_t(Lanes::at_least(of + i, bias + i, from + i)) << i;
        return found & all;
    };
    for (int p = 0; p < places; p++, sums += wide) {
        uint32_t *to = result_at<uint32_t>(step, arena, spots[p]);
        const uint64_t positive = reached(sums, bounds) ^ flips;
        set_bits(to, first, count, positive);
        if (step.edge >= 0) set_bits(to + words, first, count, positive | (reached(sums, lower) ^ lower_flips));
    }
}

// Stores results for any kind of value.
template <class Lanes, int COUNT>
inline void finish_any(const Step &step, const int32_t *sums, int first, int count, uint8_t *arena, const Spot &spot) {
    const int kind = step.result.kind;
    if (kind == FLOAT) finish<float, COUNT>(step, sums, first, count, result_at<float>(step, arena, spot));
    else if (kind == BYTE) finish<uint8_t, COUNT>(step, sums, first, count, result_at<uint8_t>(step, arena, spot));
    else if (kind == BITS) finish_bits<Lanes>(step, sums, count, first, count, arena, &spot, 1);
    else finish<int16_t, COUNT>(step, sums, first, count, result_at<int16_t>(step, arena, spot));
}

// Turns a vector of sums into codes of 32 bits, as finish_as does. mc_run has set rounding to nearest, half to even.
template <class Lanes, bool SCALED, bool SHIFTED> struct Coder {
    using Vector = typename Lanes::Vector;
    using Numbers = typename Lanes::Numbers;
    const Vector bias, zero;
    const Numbers scale, shift, inverse, low, high;

    Coder(const Step &step, const int32_t *bias_, const float *scale_, const float *shift_)
        : bias(Lanes::load(bias_)), zero(Lanes::all(step.result.zero)),
          scale(SCALED ? Lanes::load_numbers(scale_) : Lanes::all(1.0f)),
          shift(SHIFTED ? Lanes::load_numbers(shift_) : Lanes::all(0.0f)),
          inverse(Lanes::all(step.inverse)), low(Lanes::all(step.low)), high(Lanes::all(step.high)) {}

    // The numbers that the codes stand for.
    ALWAYS Numbers number(Vector sums) const {
        Numbers y = Lanes::numbers(Lanes::plus(sums, bias));
        if (SCALED) y = Lanes::times(y, scale);
        if (SHIFTED) y = Lanes::plus(y, shift);
        return y;
    }
    ALWAYS Vector operator()(Vector sums) const {
        return Lanes::plus(Lanes::nearest(Lanes::between(Lanes::times(number(sums), inverse), low, high)), zero);
    }
};

// Stores a vector of results, of which the first `count` exist.
template <class Lanes, class Coder> ALWAYS void store_results(const Coder &coder, typename Lanes::Vector sums, uint8_t *to, int count) {
    if (count >= Lanes::WIDTH) Lanes::store_bytes(to, coder(sums));
    else Lanes::store_first_bytes(to, coder(sums), count);
}
template <class Lanes, class Coder> ALWAYS void store_results(const Coder &coder, typename Lanes::Vector sums, float *to, int count) {
    if (count >= Lanes::WIDTH) Lanes::store_numbers(to, coder.number(sums));
    else Lanes::store_first_numbers(to, coder.number(sums), count);
}

// Stores codes or numbers of vectors at several places: the scales of a channel are loaded once. Only the first `left` channels exist.
template <class Lanes, class T, int VECTORS, bool SCALED, bool SHIFTED>
ALWAYS void finish_vectors(const Step &step, const int32_t *sums, int first, int left, T *const *to, int places) {
    for (int v = 0; v < VECTORS && v * Lanes::WIDTH < left; v++) {
        const int at = first + v * Lanes::WIDTH, count = left - v * Lanes::WIDTH;
        const Coder<Lanes, SCALED, SHIFTED> coder(step, step.bias + at, step.scale + at, step.shift + at);
        for (int p = 0; p < places; p++)
            store_results<Lanes>(coder, Lanes::load(sums + (p * VECTORS + v) * Lanes::WIDTH), to[p] + at, count);
    }
}

template <class Lanes, class T, int VECTORS>
inline void finish_in_vectors(const Step &step, const int32_t *sums, int first, int left, uint8_t *arena, const Spot *spots, int places) {
    T *to[Lanes::PLACES];
    for (int p = 0; p < places; p++) to[p] = result_at<T>(step, arena, spots[p]);
    if (step.scale && step.shift) finish_vectors<Lanes, T, VECTORS, true, true>(step, sums, first, left, to, places);
    else if (step.scale) finish_vectors<Lanes, T, VECTORS, true, false>(step, sums, first, left, to, places);
    else if (step.shift) finish_vectors<Lanes, T, VECTORS, false, true>(step, sums, first, left, to, places);
    else finish_vectors<Lanes, T, VECTORS, false, false>(step, sums, first, left, to, places);
}

// Stores the results of VECTORS vectors of channels at several places; only the first `left` channels exist.
template <class Lanes, int VECTORS>
inline void finish_places(const Step &step, const int32_t *sums, int first, int left, uint8_t *arena, const Spot *spots, int places) {
    constexpr int wide = VECTORS * Lanes::WIDTH;
    if (step.result.kind == BITS) return finish_bits<Lanes>(step, sums, wide, first, left, arena, spots, places);
    if constexpr (Lanes::CODES) {
        if (step.result.kind == BYTE && step.coded && !step.signs)
            return finish_in_vectors<Lanes, uint8_t, VECTORS>(step, sums, first, left, arena, spots, places);
        if (step.result.kind == FLOAT && !step.coded)
            return finish_in_vectors<Lanes, float, VECTORS>(step, sums, first, left, arena, spots, places);
    }
    for (int p = 0; p < places; p++)
        if (left >= wide) finish_any<Lanes, wide>(step, sums + p * wide, first, wide, arena, spots[p]);
        else finish_any<Lanes, 0>(step, sums + p * wide, first, left, arena, spots[p]);
}

}  // namespace
