// Sixteen floats, or 32-bit integers, in one register of AVX-512. Each of the files lanes_*.h defines the same operations, with the
// same bits as results: `fma` rounds once, `lesser` and `greater` give their second argument where one is NaN.
#include <immintrin.h>
#include <string.h>

namespace sbmini {
namespace LEVEL {
namespace {

#define INLINE inline __attribute__((always_inline))

constexpr int LANES = 16;
constexpr int QUERIES = 8;  // that attention takes together
constexpr int VECTORS = 2;  // of sixteen keys or components, that it takes together

using F = __m512;
using I = __m512i;

INLINE F zero() { return _mm512_setzero_ps(); }
INLINE F splat(float x) { return _mm512_set1_ps(x); }
INLINE F load(const float* from) { return _mm512_loadu_ps(from); }
INLINE void store(float* to, F x) { _mm512_storeu_ps(to, x); }
INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
INLINE F divide(F a, F b) { return _mm512_div_ps(a, b); }
INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }    // a b + c
INLINE F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
INLINE F lesser(F a, F b) { return _mm512_min_ps(a, b); }           // a < b ? a : b
INLINE F greater(F a, F b) { return _mm512_max_ps(a, b); }          // a > b ? a : b
INLINE F within(F x, F ends) { return _mm512_range_ps(x, ends, 2); }       // from -ends to ends; ends where x is NaN
INLINE F absolute(F x) { return _mm512_abs_ps(x); }
INLINE F with_sign_of(F x, F sign) {  // of x >= 0
    return _mm512_castsi512_ps(_mm512_or_si512(
        _mm512_castps_si512(x), _mm512_and_si512(_mm512_castps_si512(sign), _mm512_set1_epi32(INT32_MIN))));
}
INLINE I load_int(const int32_t* from) { return _mm512_loadu_si512(from); }
INLINE I load_bytes(const int8_t* from) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
INLINE F to_float(I x) { return _mm512_cvtepi32_ps(x); }

// p 2^n, n the whole number in the last bits of `shifted` = n + 1.5 * 2^23.
INLINE F times_power(F p, F shifted) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
}

// The last eight bits of each lane.
INLINE void store_last_bytes(uint8_t* to, F x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(_mm512_castps_si512(x)));
}

// The first `count` lanes of x, `other` in those after them.
INLINE F keep_first(F x, int count, F other) {
    return _mm512_mask_blend_ps(static_cast<__mmask16>(count >= 16 ? 0 : 0xffffu << count), x, other);
}

INLINE F upper_half(F x) { return _mm512_shuffle_f32x4(x, x, 0xee); }

// The lanes' sum, in this order: lane i and lane i + 8, then i + 4, then i + 2, then i + 1.
INLINE float sum(F x) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_castps512_ps256(upper_half(x)));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// The lanes' maximum, in the order of `sum`.
INLINE float largest(F x) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_castps512_ps256(upper_half(x)));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// The transpose of 16 x 16 floats, whose rows are `stride` apart, the last of `rows` rows repeated; out: 16 rows of 16.
INLINE void transpose(const float* from, size_t stride, int rows, float* out) {
    __m512 r[16], t[16];
    for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(from + static_cast<size_t>(i < rows ? i : rows - 1) * stride);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        const __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
        const __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
        _mm512_storeu_ps(out + i * LANES, _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88));
        _mm512_storeu_ps(out + (i + 8) * LANES, _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd));
        _mm512_storeu_ps(out + (i + 4) * LANES, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88));
        _mm512_storeu_ps(out + (i + 12) * LANES, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd));
    }
}

}  // namespace
}  // namespace LEVEL
}  // namespace sbmini
