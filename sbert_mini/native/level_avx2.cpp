// AVX2 with FMA: Intel since Haswell, AMD since Zen.
//
// The instruction that multiplies bytes (pmaddubsw) adds two products in 16 bits, where they may overflow. So bytes are widened to
// 16 bits, and pmaddwd adds two products in 32 bits: exact.

#include "encoder.h"

#if COMPILES_AVX2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define LEVEL avx2
#include "lanes_avx2.h"
#include "epilogue.h"

namespace sbmini {
namespace LEVEL {
namespace {

constexpr int ROWS = 4, PANEL = 16, PREPARED = 24;
using Prepared = int16_t;
struct Tiles {
    INLINE Tiles() {}
};
#define FOUR(M) M(0) M(1) M(2) M(3)

// Widens rows to 16 bits: once for all columns.
INLINE const Prepared* prepare(const uint8_t* x, size_t count, void* space) {
    Prepared* to = static_cast<Prepared*>(space);
    for (size_t i = 0; i < count; i += 16)
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + i),
                           _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i))));
    return to;
}

// Sums of R rows and 16 columns, eight after the other eight; out: [R][16]. Not inlined: what follows would take its registers.
template <int R>
__attribute__((noinline)) void sums(const Prepared* x, const Product& p, int column, int32_t* out) {
    const int groups = p.in / 4;
    for (int half = 0; half < 2; ++half, out += 8) {
        const int8_t* panel = p.packed + static_cast<size_t>(column) * p.in + 32 * half;
        const Prepared* from = x;
        // two sums a column: of its first two and its last two of four products; columns 0 to 3 in low, 4 to 7 in high
#define DECLARE(r) __m256i low##r = _mm256_setzero_si256(), high##r = low##r;
        FOUR(DECLARE)
#undef DECLARE
        for (int g = 0; g < groups; ++g, panel += 64, from += 4) {
            const __m256i low = _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(panel)));
            const __m256i high = _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(panel + 16)));
#define ADD(r)                                                              \
    if (R > r) {                                                            \
        int64_t four;                                                       \
        memcpy(&four, from + static_cast<size_t>(r) * p.in, 8);             \
        const __m256i v = _mm256_set1_epi64x(four);                         \
        low##r = _mm256_add_epi32(low##r, _mm256_madd_epi16(v, low));       \
        high##r = _mm256_add_epi32(high##r, _mm256_madd_epi16(v, high));    \
    }
            FOUR(ADD)
#undef ADD
        }
#define FINISH(r)                                                                                             \
    if (R > r)                                                                                                \
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + r * PANEL),                                       \
                           _mm256_permute4x64_epi64(_mm256_hadd_epi32(low##r, high##r), 0xd8));
        FOUR(FINISH)
#undef FINISH
    }
}

#define EIGHT(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)

// Without widening: the limit is what products of 16 bits and their sums allow.
int64_t peak(int64_t rounds) {
    __m256i a = _mm256_set1_epi16(3), b = _mm256_set1_epi16(-5);
#define DECLARE(n) __m256i s##n = _mm256_set1_epi32(n);
    EIGHT(DECLARE)
#undef DECLARE
    for (int64_t i = 0; i < rounds; ++i) {
#define ADD(n)                                     \
    __asm__ volatile("" : "+x"(a), "+x"(b));       \
    s##n = _mm256_add_epi32(s##n, _mm256_madd_epi16(a, b));
        EIGHT(ADD)
#undef ADD
    }
#define KEEP(n) __asm__ volatile("" : : "x"(s##n));
    EIGHT(KEEP)
#undef KEEP
    return rounds * 8 * 16;
}
#undef EIGHT

}  // namespace
}  // namespace LEVEL
}  // namespace sbmini

#include "rows.h"
#include "encode.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
