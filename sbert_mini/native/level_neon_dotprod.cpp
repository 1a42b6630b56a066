// NEON with the dot product of signed bytes: Apple's processors, ARM servers since Neoverse N1.
//
// The instruction multiplies signed bytes alone: from each unsigned one 128 is taken off, and 128 times the column's sum is
// where a sum begins. Exact: no sum leaves 32 bits.

#include "encoder.h"

#if COMPILES_NEON_DOTPROD
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

#define LEVEL neon_dotprod
#include "lanes_neon.h"
#include "epilogue.h"

namespace sbmini {
namespace LEVEL {
namespace {

constexpr int ROWS = 4, PANEL = 16, PREPARED = 0;
using Prepared = uint8_t;
struct Tiles {
    INLINE Tiles() {}
};
#define FOUR(M) M(0) M(1) M(2) M(3)

INLINE const Prepared* prepare(const uint8_t* x, size_t, void*) { return x; }

// Sums of R rows and 16 columns; out: [R][16]. Not inlined: what follows would take its registers.
template <int R>
__attribute__((noinline)) void sums(const Prepared* x, const Product& p, int column, int32_t* out) {
    const int8_t* panel = p.packed + static_cast<size_t>(column) * p.in;
    const uint8x16_t half = vdupq_n_u8(128);
    const int32_t* offset = p.offset + column;
#define DECLARE(r)                                                                     \
    int32x4_t a##r = vld1q_s32(offset), b##r = vld1q_s32(offset + 4);                  \
    int32x4_t c##r = vld1q_s32(offset + 8), d##r = vld1q_s32(offset + 12);             \
    int8x16_t x##r = vdupq_n_s8(0);
    FOUR(DECLARE)
#undef DECLARE
    for (int k = 0; k < p.in; k += 16, x += 16) {
#define READ(r) \
    if (R > r) x##r = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(x + static_cast<size_t>(r) * p.in), half));
        FOUR(READ)
#undef READ
        int8x16_t w0, w1, w2, w3;
#define WEIGHTS                                                                                              \
    w0 = vld1q_s8(panel), w1 = vld1q_s8(panel + 16), w2 = vld1q_s8(panel + 32), w3 = vld1q_s8(panel + 48);   \
    panel += 64;
#define ADD(r, lane)                                 \
    if (R > r) {                                     \
        a##r = vdotq_laneq_s32(a##r, w0, x##r, lane); \
        b##r = vdotq_laneq_s32(b##r, w1, x##r, lane); \
        c##r = vdotq_laneq_s32(c##r, w2, x##r, lane); \
        d##r = vdotq_laneq_s32(d##r, w3, x##r, lane); \
    }
        WEIGHTS ADD(0, 0) ADD(1, 0) ADD(2, 0) ADD(3, 0)
        WEIGHTS ADD(0, 1) ADD(1, 1) ADD(2, 1) ADD(3, 1)
        WEIGHTS ADD(0, 2) ADD(1, 2) ADD(2, 2) ADD(3, 2)
        WEIGHTS ADD(0, 3) ADD(1, 3) ADD(2, 3) ADD(3, 3)
#undef ADD
#undef WEIGHTS
    }
#define FINISH(r)                              \
    if (R > r) {                               \
        vst1q_s32(out + r * PANEL, a##r);      \
        vst1q_s32(out + r * PANEL + 4, b##r);  \
        vst1q_s32(out + r * PANEL + 8, c##r);  \
        vst1q_s32(out + r * PANEL + 12, d##r); \
    }
    FOUR(FINISH)
#undef FINISH
}

#define SIXTEEN(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)

int64_t peak(int64_t rounds) {
    int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(-5);
#define DECLARE(n) int32x4_t s##n = vdupq_n_s32(n);
    SIXTEEN(DECLARE)
#undef DECLARE
    for (int64_t i = 0; i < rounds; ++i) {
        __asm__ volatile("" : "+w"(a), "+w"(b));  // or the compiler would compute the loop's result itself
#define ADD(n) s##n = vdotq_s32(s##n, a, b);
        SIXTEEN(ADD)
#undef ADD
    }
#define KEEP(n) __asm__ volatile("" : : "w"(s##n));
    SIXTEEN(KEEP)
#undef KEEP
    return rounds * 16 * 16;
}

}  // namespace
}  // namespace LEVEL
}  // namespace sbmini

#include "rows.h"
#include "encode.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
