// AVX2 with FMA: Intel since Haswell, AMD since Zen.
//
// The instruction that multiplies bytes (pmaddubsw) adds two products in 16 bits, where they may overflow. So bytes are widened
// to 16 bits, and pmaddwd adds two products in 32 bits: exact. Weights are widened once for all rows of a chunk, into memory that
// stays in the first cache.

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

constexpr int PREPARED = 96;  // rows that are widened together
using Prepared = int16_t;
struct Four {
    Prepared activation[4];
};
struct Tiles {
    INLINE Tiles() {}
};

constexpr int ROWS = 3, PANEL = 16;  // of a tile: twelve registers of sums
constexpr int DEEP = 512;            // rows of weights that are widened together: 16 KB, which stay in the first cache

#define THREE(M) M(0) M(1) M(2)

// Widens activations to 16 bits: once for all columns.
INLINE void widen_rows(const uint8_t* x, size_t count, Prepared* to) {
    for (size_t i = 0; i < count; i += 16)
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + i),
                           _mm256_cvtepu8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(x + i))));
}

// Adds the products of a row's next four activations and those of 16 columns' weights, of which the first eight columns' are in
// registers. As assembler: compilers want more than the sixteen registers, and keep sums in memory.
INLINE void add_products(const Prepared* x, __m256i wa, __m256i wb, const __m256i* w, __m256i& a, __m256i& b, __m256i& c,
                         __m256i& d) {
    __m256i four, sums;
    __asm__("vpbroadcastq %[x], %[four]\n\t"
            "vpmaddwd %[wa], %[four], %[sums]\n\t"
            "vpaddd %[sums], %[a], %[a]\n\t"
            "vpmaddwd %[wb], %[four], %[sums]\n\t"
            "vpaddd %[sums], %[b], %[b]\n\t"
            "vpmaddwd %[wc], %[four], %[sums]\n\t"
            "vpaddd %[sums], %[c], %[c]\n\t"
            "vpmaddwd %[wd], %[four], %[four]\n\t"
            "vpaddd %[four], %[d], %[d]"
            : [a] "+x"(a), [b] "+x"(b), [c] "+x"(c), [d] "+x"(d), [four] "=&x"(four), [sums] "=&x"(sums)
            : [x] "m"(*reinterpret_cast<const Four*>(x)), [wa] "x"(wa), [wb] "x"(wb), [wc] "m"(w[2]), [wd] "m"(w[3]));
}

// Eight columns' sums from two registers, each with two sums of four columns.
INLINE __m256i eight_columns(__m256i low, __m256i high) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(low, high), 0xd8);
}

// A block of a panel's weights, [deep / 4][16][4].
struct Weights {
    const int8_t* bytes;
    int16_t* widened;
    int deep;
    bool first;  // of the panel
};

// Adds the sums of R rows and 16 columns to out, [R][16], or stores them there. x: rows `stride` apart. WIDEN: the weights, for
// the rows that follow too. next: the weights that come next, of which a quarter is brought into the cache meanwhile; null where
// they are there. Not inlined: what follows would take its registers.
template <int R, bool WIDEN>
__attribute__((noinline)) void sums(const Prepared* x, size_t stride, const Weights& weights, const int8_t* next, int32_t* out) {
    const __m128i* bytes = reinterpret_cast<const __m128i*>(weights.bytes);
    __m256i* w = reinterpret_cast<__m256i*>(weights.widened);
    const int deep = weights.deep;
#define DECLARE(r) __m256i a##r = _mm256_setzero_si256(), b##r = a##r, c##r = a##r, d##r = a##r;
    THREE(DECLARE)
#undef DECLARE
#define ADD(r) \
    if (R > r) add_products(x + r * stride, wa, wb, w, a##r, b##r, c##r, d##r);
#define STEP                                                                       \
    {                                                                              \
        for (int i = 0; WIDEN && i < 4; ++i, ++bytes)                              \
            _mm256_store_si256(w + i, _mm256_cvtepi8_epi16(_mm_load_si128(bytes))); \
        const __m256i wa = _mm256_load_si256(w), wb = _mm256_load_si256(w + 1);    \
        THREE(ADD)                                                                 \
        w += 4, x += 4;                                                            \
    }
    for (int k = 0; k < deep; k += 16) {
        if (next) _mm_prefetch(reinterpret_cast<const char*>(next + 4 * k), _MM_HINT_T0);
        STEP STEP STEP STEP
    }
#undef STEP
#undef ADD
#define FINISH(r)                                                                        \
    if (R > r) {                                                                         \
        __m256i* to = reinterpret_cast<__m256i*>(out + r * PANEL);                       \
        __m256i low = eight_columns(a##r, b##r), high = eight_columns(c##r, d##r);       \
        if (!weights.first) {                                                            \
            low = _mm256_add_epi32(low, _mm256_load_si256(to));                          \
            high = _mm256_add_epi32(high, _mm256_load_si256(to + 1));                    \
        }                                                                                \
        _mm256_store_si256(to, low);                                                     \
        _mm256_store_si256(to + 1, high);                                                \
    }
    THREE(FINISH)
#undef FINISH
}

template <bool WIDEN>
INLINE void some_sums(int rows, const Prepared* x, size_t stride, const Weights& weights, const int8_t* next, int32_t* out) {
    if (rows >= 3)
        sums<3, WIDEN>(x, stride, weights, next, out);
    else if (rows == 2)
        sums<2, WIDEN>(x, stride, weights, next, out);
    else
        sums<1, WIDEN>(x, stride, weights, next, out);
}

// Block by block of a panel's weights, all rows of a chunk.
template <class Then>
void multiply(const uint8_t* x, int rows, const Product& p, Columns columns, void* space, const Then& then) {
    alignas(64) int16_t widened[DEEP * PANEL];
    alignas(64) int32_t buffer[PREPARED * PANEL];
    Prepared* const prepared = static_cast<Prepared*>(space);
    const size_t in = p.in;
    for (int begin = 0; begin < rows; begin += PREPARED) {
        const int count = rows - begin < PREPARED ? rows - begin : PREPARED;
        widen_rows(x + begin * in, count * in, prepared);
        for (int column = columns.begin; column < columns.end; column += PANEL) {
            const int8_t* panel = p.packed + column * in;
            for (int k = 0; k < p.in; k += DEEP, panel += DEEP * PANEL) {
                const Weights weights{panel, widened, p.in - k < DEEP ? p.in - k : DEEP, k == 0};
                const int8_t* const end = panel + weights.deep * PANEL;
                const Prepared* from = prepared + k;
                some_sums<true>(count, from, in, weights, end, buffer);
                for (int row = ROWS; row < count; row += ROWS)
                    some_sums<false>(count - row, from + row * in, in, weights,
                                     row < 4 * ROWS ? end + row / ROWS * weights.deep * 4 : nullptr, buffer + row * PANEL);
            }
            finish<PANEL>(buffer, count, begin, column, p, then);
        }
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

#include "encode.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
