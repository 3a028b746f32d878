// AMX: as AVX512 VNNI + VPOPCNT, but layers on bytes run in tiles: 16 places times 16 outputs times 64 products an instruction.
// In assembly: compilers' intrinsics take a tile's number as a literal only, and some compilers drop stores that tiles read.
#include "tiles.h"

namespace {

struct Tiles {
    static void configure(const Shapes &shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
    static void release() { asm volatile("tilerelease"); }
    template <int T> ALWAYS static void zero() { asm volatile("tilezero %%tmm%c0" : : "i"(T)); }
    template <int T> ALWAYS static void load(const void *from, int64_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
    }
    template <int T> ALWAYS static void store(void *to, int64_t stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
    }
    // C += unsigned bytes of A times signed bytes of B.
    template <int C, int A, int B> ALWAYS static void multiply() {
        asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
    }
};

}  // namespace

extern const Kernels amx_kernels;
bool amx_adds_right() { return tiles_add_right<Tiles>(); }
const Kernels amx_kernels = with_tiles<Tiles>("AMX");
