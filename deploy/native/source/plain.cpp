// Plain C++ for any processor; tests compare the other instruction sets with it.
#include "kernels.h"

namespace {

struct Lanes {
    static constexpr int WIDTH = 8, PLACES = 4, WIDE_PLACES = 1, DEPTHWISE_LANES = 0;
    static constexpr bool WHOLE = true, CODES = false;
    struct Vector { int32_t part[8]; };
    static Vector zero() { return {}; }
    // Intermediate sums of bytes may overflow 32 bits; the final sums are right modulo 2^32.
    static void add(int32_t &total, int32_t product) { total = int32_t(uint32_t(total) + uint32_t(product)); }
    static Vector repeat(const uint8_t *at) { return {{four_bytes(at)}}; }
    static Vector pairs(Vector total, const Vector &x, const int16_t *w) {
        int16_t two[2];
        std::memcpy(two, x.part, 4);
        for (int i = 0; i < WIDTH; i++) add(total.part[i], int32_t(two[0]) * w[2 * i] + int32_t(two[1]) * w[2 * i + 1]);
        return total;
    }
    static Vector fours(Vector total, const Vector &x, const int8_t *w) {
        uint8_t four[4];
        std::memcpy(four, x.part, 4);
        for (int i = 0; i < WIDTH; i++)
            for (int k = 0; k < 4; k++) add(total.part[i], int32_t(four[k]) * w[4 * i + k]);
        return total;
    }
    static void store(int32_t *to, const Vector &total) { std::memcpy(to, total.part, sizeof total.part); }
    template <class Test> static unsigned each(const float *x, Test test) {
        unsigned found = 0;
        for (int i = 0; i < WIDTH; i++) found |= unsigned(test(x[i])) << i;
        return found;
    }
    static unsigned not_negative(const float *x) { return each(x, [](float y) { return y >= 0; }); }
    static unsigned above(const float *x, float edge) { return each(x, [=](float y) { return y > edge; }); }
    static unsigned below(const float *x, float edge) { return each(x, [=](float y) { return y < edge; }); }
    static unsigned at_least(const int32_t *sums, const int32_t *bias, const int32_t *bounds) {
        unsigned found = 0;
        for (int i = 0; i < WIDTH; i++) found |= unsigned(int32_t(uint32_t(sums[i]) + uint32_t(bias[i])) >= bounds[i]) << i;
        return found;
    }
};

struct Counts {
    static constexpr int PLACES = 1, WIDTH = Lanes::WIDTH;
    int32_t sums[WIDTH] = {0};
    static int32_t count(uint32_t x) {
        x = x - ((x >> 1) & 0x55555555u);
        x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
        return int32_t((((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u) >> 24);
    }
    void add_unequal(uint32_t x, const uint32_t *w) {
        for (int o = 0; o < WIDTH; o++) sums[o] += count(x ^ w[o]);
    }
    void add_three(const uint32_t *x, const uint32_t *w, int apart) {
        for (int o = 0; o < WIDTH; o++) {
            const uint32_t a = x[0] ^ w[o], ab = x[1] ^ w[apart + o], abc = x[2] ^ w[2 * apart + o];
            sums[o] += count(abc) + 2 * count((ab & ~abc) | (~ab & a));
        }
    }
    void add_unequal_in(uint32_t x, const uint32_t *w, uint32_t mask) {
        for (int o = 0; o < WIDTH; o++) sums[o] += count((x ^ w[o]) & mask);
    }
    void add_unequal_of(uint32_t x, const uint32_t *w, const uint32_t *counting) {
        for (int o = 0; o < WIDTH; o++) sums[o] += count((x ^ w[o]) & counting[o]);
    }
    void add_unequal_both(uint32_t x, const uint32_t *w, const uint32_t *counting, uint32_t mask) {
        for (int o = 0; o < WIDTH; o++) sums[o] += count((x ^ w[o]) & counting[o] & mask);
    }
    void add(const uint32_t *counting, uint32_t mask) {
        for (int o = 0; o < WIDTH; o++) sums[o] += count(counting[o] & mask);
    }
    unsigned at_most(const int32_t *limits) const {
        unsigned found = 0;
        for (int o = 0; o < WIDTH; o++) found |= unsigned(sums[o] <= limits[o]) << o;
        return found;
    }
    void total(int32_t *to) const { std::memcpy(to, sums, sizeof sums); }
};

}  // namespace

extern const Kernels plain_kernels;
const Kernels plain_kernels = kernels<Lanes, Counts>("plain C++");
