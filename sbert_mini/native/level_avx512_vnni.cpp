// AVX-512 with VNNI: Intel servers since Cascade Lake and Ice Lake, AMD since Zen 4.

#include "encoder.h"

#if COMPILES_AVX512_VNNI
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")
#endif

#define LEVEL avx512_vnni
#include "lanes_avx512.h"
#include "epilogue.h"

namespace sbmini {
namespace LEVEL {
namespace {

constexpr int ROWS = 6, PANEL = 64, PREPARED = 0;
using Prepared = uint8_t;
struct Tiles {
    INLINE Tiles() {}
};
#define SIX(M) M(0) M(1) M(2) M(3) M(4) M(5)

INLINE const Prepared* prepare(const uint8_t* x, size_t, void*) { return x; }

// Sums of R rows and 64 columns; out: [R][64]. Not inlined: what follows would take its registers.
template <int R>
__attribute__((noinline)) void sums(const Prepared* x, const Product& p, int column, int32_t* out) {
    const int groups = p.in / 4;
    const size_t next = static_cast<size_t>(p.in) * LANES;  // bytes from one panel of 16 columns to the next
    const int8_t* panel = p.packed + static_cast<size_t>(column) * p.in;
#define DECLARE(r) __m512i s##r##0 = _mm512_setzero_si512(), s##r##1 = s##r##0, s##r##2 = s##r##0, s##r##3 = s##r##0;
    SIX(DECLARE)
#undef DECLARE
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g, panel += 64, x += 4) {
        const __m512i w0 = _mm512_load_si512(panel), w1 = _mm512_load_si512(panel + next);
        const __m512i w2 = _mm512_load_si512(panel + 2 * next), w3 = _mm512_load_si512(panel + 3 * next);
#define ADD(r)                                               \
    if (R > r) {                                             \
        int32_t four;                                        \
        memcpy(&four, x + static_cast<size_t>(r) * p.in, 4); \
        const __m512i v = _mm512_set1_epi32(four);           \
        s##r##0 = _mm512_dpbusd_epi32(s##r##0, v, w0);       \
        s##r##1 = _mm512_dpbusd_epi32(s##r##1, v, w1);       \
        s##r##2 = _mm512_dpbusd_epi32(s##r##2, v, w2);       \
        s##r##3 = _mm512_dpbusd_epi32(s##r##3, v, w3);       \
    }
        SIX(ADD)
#undef ADD
    }
#define FINISH(r)                                          \
    if (R > r) {                                           \
        _mm512_store_si512(out + r * PANEL, s##r##0);      \
        _mm512_store_si512(out + r * PANEL + 16, s##r##1); \
        _mm512_store_si512(out + r * PANEL + 32, s##r##2); \
        _mm512_store_si512(out + r * PANEL + 48, s##r##3); \
    }
    SIX(FINISH)
#undef FINISH
}

#define TWELVE(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11)

int64_t peak(int64_t rounds) {
    __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-5);
#define DECLARE(n) __m512i s##n = _mm512_set1_epi32(n);
    TWELVE(DECLARE)
#undef DECLARE
    for (int64_t i = 0; i < rounds; ++i) {
        __asm__ volatile("" : "+v"(a), "+v"(b));  // or the compiler would compute the loop's result itself
#define ADD(n) s##n = _mm512_dpbusd_epi32(s##n, a, b);
        TWELVE(ADD)
#undef ADD
    }
#define KEEP(n) __asm__ volatile("" : : "v"(s##n));
    TWELVE(KEEP)
#undef KEEP
    return rounds * 12 * 64;
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
