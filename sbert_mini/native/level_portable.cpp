// Plain C++, for any processor. It is slow, and the reference for the others.

#include "encoder.h"

#if defined(__SSE2__) && !defined(PLAIN)
#include <emmintrin.h>
#endif

#define LEVEL portable
#include "lanes_portable.h"
#include "epilogue.h"

namespace sbmini {
namespace LEVEL {
namespace {

struct Tiles {
    Tiles() {}
};

#if defined(__SSE2__) && !defined(PLAIN)

// Every x86-64 has SSE2. As in level_avx2.cpp, bytes are widened to 16 bits.
constexpr int ROWS = 1, PANEL = 16, PREPARED = 32;
using Prepared = int16_t;

INLINE const Prepared* prepare(const uint8_t* x, size_t count, void* space) {
    Prepared* to = static_cast<Prepared*>(space);
    for (size_t i = 0; i < count; ++i) to[i] = x[i];
    return to;
}

#define EIGHT(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)

// Sums of a row and 16 columns. Each register has two columns, and two sums for each: they become one at the end.
template <int R>
void sums(const Prepared* x, const Product& p, int column, int32_t* out) {
    const int8_t* panel = p.packed + static_cast<size_t>(column) * p.in;
#define DECLARE(n) __m128i s##n = _mm_setzero_si128();
    EIGHT(DECLARE)
#undef DECLARE
    for (int k = 0; k < p.in; k += 4, panel += 4 * PANEL) {
        const __m128i half = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(x + k)), four = _mm_unpacklo_epi64(half, half);
#define ADD(n)                                                                                                        \
    {                                                                                                                 \
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(panel + 8 * n));                       \
        s##n = _mm_add_epi32(s##n, _mm_madd_epi16(four, _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8)));         \
    }
        EIGHT(ADD)
#undef ADD
    }
    int32_t parts[2 * PANEL];
#define FINISH(n) _mm_storeu_si128(reinterpret_cast<__m128i*>(parts + 4 * n), s##n);
    EIGHT(FINISH)
#undef FINISH
    for (int c = 0; c < PANEL; ++c) out[c] = parts[2 * c] + parts[2 * c + 1];
}
#undef EIGHT

#else

constexpr int ROWS = 1, PANEL = 16, PREPARED = 0;
using Prepared = uint8_t;

INLINE const Prepared* prepare(const uint8_t* x, size_t, void*) { return x; }

// Sums of a row and 16 columns.
template <int R>
void sums(const Prepared* x, const Product& p, int column, int32_t* out) {
    const int8_t* panel = p.packed + static_cast<size_t>(column) * p.in;
    for (int c = 0; c < PANEL; ++c) out[c] = 0;
    for (int k = 0; k < p.in; k += 4, panel += 4 * PANEL) {
        const int a = x[k], b = x[k + 1], c = x[k + 2], d = x[k + 3];
        for (int i = 0; i < PANEL; ++i)
            out[i] += a * panel[4 * i] + b * panel[4 * i + 1] + c * panel[4 * i + 2] + d * panel[4 * i + 3];
    }
}

#endif

int64_t peak(int64_t rounds) {
    int16_t x[64], w[64];
    int32_t total[64] = {};
    for (int i = 0; i < 64; ++i) x[i] = static_cast<int16_t>(i), w[i] = static_cast<int16_t>(64 - i);
    for (int64_t n = 0; n < rounds; ++n) {
        __asm__ volatile("" : : "r"(x), "r"(w) : "memory");
        for (int i = 0; i < 64; ++i) total[i] += x[i] * w[i];
        __asm__ volatile("" : : "r"(total) : "memory");
    }
    return rounds * 64;
}

}  // namespace
}  // namespace LEVEL
}  // namespace sbmini

#include "rows.h"
#include "encode.h"
