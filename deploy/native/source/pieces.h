// Windows as tiles read them: in pieces, of which one or several fill a row of a tile; see deploy/native/tiles.py.
#pragma once
#include "sixteen.h"
#include <vector>

namespace {  // each instruction set has its own

constexpr int PLACES = 32;  // at once: two tiles

// The unit's configuration: the bytes of a row and the rows of each tile. Tiles 0 to 3 hold sums, 4 and 5 places, 6 and 7 weights.
struct alignas(64) Shapes {
    uint8_t palette = 1, start = 0, none[14] = {0};
    uint16_t bytes[16] = {64, 64, 64, 64, 0, 0, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 0, 0};
    explicit Shapes(int64_t of_window) {
        bytes[4] = bytes[5] = uint16_t(of_window);
        rows[6] = rows[7] = uint8_t(of_window / 4);
    }
};
static_assert(sizeof(Shapes) == 64, "the unit reads 64 bytes");

// The tiles of a window, and the bytes of the window in each, a multiple of four.
struct Window {
    const int64_t tiles, bytes;
    explicit Window(const Step &step) : tiles(step.count / step.joined), bytes((int64_t(step.joined) * step.depth + 3) / 4 * 4) {}
};

// The windows of 16 places: the start of each tile's first row, and the distance between rows.
struct Side {
    const uint8_t *first;
    int64_t stride;
    const int32_t *offsets;  // null: the tiles are contiguous
    const uint8_t *tile(int64_t k) const { return first + (offsets ? offsets[k] : k * 1024); }
};

struct alignas(64) Line {
    uint8_t bytes[64];
};

// Gathers the pieces of 16 windows in order. Each store writes zeros after its piece, which the next store overwrites.
inline void gather(const Step &step, const Window &window, const uint8_t *const *from, const int32_t *offsets, Line *to) {
    const __mmask64 mask = ~__mmask64(0) >> (64 - step.depth);
    for (int64_t k = 0; k < window.tiles; k++, offsets += step.joined)
        for (int row = 0; row < 16; row++, to++)
            for (int j = 0; j < step.joined; j++)
                _mm512_storeu_si512(to->bytes + j * step.depth, _mm512_maskz_loadu_epi8(mask, from[row] + offsets[j]));
}

// A tile reads places at equal distances in place: places of one row, or of rows without a gap. Other places are gathered.
inline Side side_of(const Step &step, const uint8_t *arena, const Window &window, int group, int number, const Spot *spots, int count) {
    const int32_t *offsets = step.offsets + group * step.count;
    const int64_t across = int64_t(step.stride[1]) * step.source.pitch;
    if (count >= 16 && step.joined == 1 && spots[15].from - spots[0].from == 15 * across)
        return {window_at<uint8_t>(step, arena, spots[0]), across, offsets};
    const uint8_t *from[16];
    for (int p = 0; p < 16; p++) from[p] = window_at<uint8_t>(step, arena, spots[p < count ? p : 0]);
    thread_local std::vector<Line> lines[2];
    const size_t wanted = size_t(window.tiles) * 16 + 1;
    if (lines[number].size() < wanted) lines[number].resize(wanted);
    gather(step, window, from, offsets, lines[number].data());
    return {lines[number].data()->bytes, 64, nullptr};
}

}  // namespace
