// AVX2 with the VNNI of 256 bits: Intel laptops since 2021 (Alder Lake), AMD since Zen 5.

#include "encoder.h"

#if COMPILES_AVX_VNNI
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avxvnni")
#endif

#define LEVEL avx_vnni
#include "lanes_avx2.h"
#include "epilogue.h"

namespace sbmini {
namespace LEVEL {
namespace {

constexpr int ROWS = 6, PANEL = 16, PREPARED = 0;
using Prepared = uint8_t;
struct Tiles {
    INLINE Tiles() {}
};
#define SIX(M) M(0) M(1) M(2) M(3) M(4) M(5)

INLINE const Prepared* prepare(const uint8_t* x, size_t, void*) { return x; }

// Sums of R rows and 16 columns; out: [R][16]. Not inlined: what follows would take its registers.
template <int R>
__attribute__((noinline)) void sums(const Prepared* x, const Product& p, int column, int32_t* out) {
    const int groups = p.in / 4;
    const int8_t* panel = p.packed + static_cast<size_t>(column) * p.in;
#define DECLARE(r) __m256i low##r = _mm256_setzero_si256(), high##r = low##r;
    SIX(DECLARE)
#undef DECLARE
    for (int g = 0; g < groups; ++g, panel += 64, x += 4) {
        const __m256i low = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel));
        const __m256i high = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel + 32));
#define ADD(r)                                               \
    if (R > r) {                                             \
        int32_t four;                                        \
        memcpy(&four, x + static_cast<size_t>(r) * p.in, 4); \
        const __m256i v = _mm256_set1_epi32(four);           \
        low##r = _mm256_dpbusd_avx_epi32(low##r, v, low);    \
        high##r = _mm256_dpbusd_avx_epi32(high##r, v, high); \
    }
        SIX(ADD)
#undef ADD
    }
#define FINISH(r)                                                                      \
    if (R > r) {                                                                       \
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + r * PANEL), low##r);       \
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + r * PANEL + 8), high##r);  \
    }
    SIX(FINISH)
#undef FINISH
}

#define TWELVE(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11)

int64_t peak(int64_t rounds) {
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
#define DECLARE(n) __m256i s##n = _mm256_set1_epi32(n);
    TWELVE(DECLARE)
#undef DECLARE
    for (int64_t i = 0; i < rounds; ++i) {
        __asm__ volatile("" : "+x"(a), "+x"(b));  // or the compiler would compute the loop's result itself
#define ADD(n) s##n = _mm256_dpbusd_avx_epi32(s##n, a, b);
        TWELVE(ADD)
#undef ADD
    }
#define KEEP(n) __asm__ volatile("" : : "x"(s##n));
    TWELVE(KEEP)
#undef KEEP
    return rounds * 12 * 32;
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
