// For tests: the AMX kernels on a processor without AMX. A use that the unit would refuse aborts the process.
#include "tiles.h"
#include <cstdio>
#include <cstdlib>

namespace {

void refuse(bool wrong, const char *why) {
    if (!wrong) return;
    std::fprintf(stderr, "AMX emulated: %s\n", why);
    std::abort();
}

struct Tile {
    int rows, bytes;
    alignas(64) uint8_t held[16][64];
};

struct Unit {
    bool configured = false;
    Tile tiles[8];
};
thread_local Unit unit;

struct Tiles {
    static void configure(const Shapes &shapes) {
        uint8_t told[64];  // byte offsets as in the processor manual
        std::memcpy(told, &shapes, 64);
        refuse(told[0] != 1, "the palette must be 1");
        unit = Unit();
        for (int i = 1; i < 64; i++) refuse((i < 16 || (i >= 32 && i < 48) || i >= 56) && told[i], "reserved bytes must be 0");
        for (int t = 0; t < 8; t++) {
            const int bytes = told[16 + 2 * t] | told[17 + 2 * t] << 8, rows = told[48 + t];
            refuse(bytes > 64 || rows > 16 || !bytes != !rows, "a tile has at most 16 rows of at most 64 bytes");
            unit.tiles[t].bytes = bytes;
            unit.tiles[t].rows = rows;
            std::memset(unit.tiles[t].held, 0, sizeof unit.tiles[t].held);
        }
        unit.configured = true;
    }
    static void release() { unit = Unit(); }
    static Tile &tile(int number) {
        refuse(!unit.configured, "the tiles are not configured");
        refuse(!unit.tiles[number].rows, "the tile has no shape");
        return unit.tiles[number];
    }
    template <int T> static void zero() { std::memset(tile(T).held, 0, sizeof tile(T).held); }
    template <int T> static void load(const void *from, int64_t stride) {
        zero<T>();
        for (int row = 0; row < tile(T).rows; row++)
            std::memcpy(tile(T).held[row], static_cast<const uint8_t *>(from) + row * stride, tile(T).bytes);
    }
    template <int T> static void store(void *to, int64_t stride) {
        for (int row = 0; row < tile(T).rows; row++)
            std::memcpy(static_cast<uint8_t *>(to) + row * stride, tile(T).held[row], tile(T).bytes);
    }
    template <int C, int A, int B> static void multiply() {
        static_assert(C != A && C != B && A != B, "the three tiles must differ");
        Tile &c = tile(C), &a = tile(A), &b = tile(B);
        refuse(a.bytes % 4 || b.bytes % 4 || c.bytes % 4, "the bytes of a row must be a multiple of 4");
        refuse(a.rows != c.rows || b.bytes != c.bytes || a.bytes / 4 != b.rows, "the tiles' shapes do not match");
        for (int row = 0; row < a.rows; row++) {
            auto total = Sixteen::load(c.held[row]);
            for (int k = 0; k < b.rows; k++)
                total = _mm512_dpbusd_epi32(total, Sixteen::repeat(a.held[row] + 4 * k), Sixteen::load(b.held[k]));
            Sixteen::store(reinterpret_cast<int32_t *>(c.held[row]), total);
        }
    }
};

}  // namespace

extern const Kernels amx_emulated_kernels;
bool amx_emulated_adds_right() { return tiles_add_right<Tiles>(); }
const Kernels amx_emulated_kernels = with_tiles<Tiles>("AMX emulated");
