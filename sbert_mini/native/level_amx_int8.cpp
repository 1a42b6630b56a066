// AMX tiles, and AVX-512 for all else: Intel servers since Sapphire Rapids.

#include "encoder.h"

#if COMPILES_AMX_INT8
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8,fma")
#endif

#define LEVEL amx_int8
#include "lanes_avx512.h"
#include "epilogue.h"

namespace sbmini {
namespace LEVEL {
namespace {

constexpr int TILE = 16;  // rows and columns of a tile
constexpr int PREPARED = 0;
using Prepared = uint8_t;

struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_a_row[16] = {};
    uint8_t rows[16] = {};
};

// The tiles' sizes, while it lives.
struct Tiles {
    INLINE Tiles() {
        TileConfig config;
        for (int i = 0; i < 8; ++i) {
            config.bytes_a_row[i] = 64;
            config.rows[i] = TILE;
        }
        __asm__ volatile("ldtilecfg %0" ::"m"(config));  // GCC's own _tile_loadconfig reads 8 of the 64 bytes, for all that it knows
    }
    INLINE ~Tiles() { _tile_release(); }
};

// Sums that wait for `finish`.
struct Pending {
    const int32_t* sums = nullptr;
    int rows = 0, row = 0, column = 0, finished = 0;
};

// Finishes `count` rows, or as many as there are.
template <class Then>
INLINE void finish_some(Pending& pending, int count, const Product& p, const Then& then) {
    const int left = pending.rows - pending.finished, rows = left < count ? left : count;
    finish<2 * TILE>(pending.sums + pending.finished * 2 * TILE, rows, pending.row + pending.finished, pending.column, p, then);
    pending.finished += rows;
}

// Two by two tiles of 16 x 16 sums; the rows of x are allocated up to a multiple of 32. While the tiles' unit computes them, the
// other units finish the sums before, some rows at each step: neither waits for the other.
template <class Then>
void multiply(const uint8_t* x, int rows, const Product& p, Columns columns, void*, const Then& given) {
    __asm__ volatile("" ::: "memory");  // some compilers do not know that _tile_loadd reads memory
    const Then then = given;            // a copy that no store can alter: it stays in registers
    alignas(64) int32_t sums[2][2 * TILE * 2 * TILE];
    constexpr int SUMS = 2 * TILE * sizeof(int32_t);
    const size_t next = static_cast<size_t>(p.in) * LANES;
    const int steps = p.in / 64;
    Pending pending;
    int turn = 0;
    for (int column = columns.begin; column < columns.end; column += 2 * TILE) {
        const int8_t* panel = p.packed + static_cast<size_t>(column) * p.in;
        for (int row = 0; row < rows; row += 2 * TILE, turn = 1 - turn) {
            const uint8_t* upper = x + static_cast<size_t>(row) * p.in;
            const uint8_t* lower = upper + static_cast<size_t>(TILE) * p.in;
            const int left = rows - row < 2 * TILE ? rows - row : 2 * TILE;
            const bool both = left > TILE;
            const int together = (pending.rows + steps - 1) / steps;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            for (int k = 0; k < p.in; k += 64) {
                _tile_loadd(4, upper + k, p.in);
                _tile_loadd(6, panel + static_cast<size_t>(k) * LANES, 64);
                _tile_dpbusd(0, 4, 6);
                _tile_loadd(7, panel + next + static_cast<size_t>(k) * LANES, 64);
                _tile_dpbusd(1, 4, 7);
                if (both) {
                    _tile_loadd(5, lower + k, p.in);
                    _tile_dpbusd(2, 5, 6);
                    _tile_dpbusd(3, 5, 7);
                }
                finish_some(pending, together, p, then);
            }
            int32_t* out = sums[turn];
            _tile_stored(0, out, SUMS);
            _tile_stored(1, out + TILE, SUMS);
            if (both) {
                _tile_stored(2, out + TILE * 2 * TILE, SUMS);
                _tile_stored(3, out + TILE * 2 * TILE + TILE, SUMS);
            }
            __asm__ volatile("" ::: "memory");
            pending = {out, left, row, column, 0};
        }
    }
    finish_some(pending, pending.rows, p, then);
}

int64_t peak(int64_t rounds) {
    const Tiles tiles;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int64_t i = 0; i < rounds; ++i) {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    return rounds * 4 * TILE * TILE * 64;
}

}  // namespace
}  // namespace LEVEL
}  // namespace sbmini

#include "encode.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
