// The encoder with AVX-512 VNNI, and with AMX where there is one. Called only on processors that have them (encoder.cpp asks).
//
// It computes what the int8 graph computes (sbert_mini/runtime/graph.py), and keeps what lies between two products in cache:
// a product's sums leave the registers scaled, with bias, residual or GELU, and as bytes for the next product. Texts are not
// padded: the tokens of a batch stand one after the other, and only attention knows where a text ends. Every token's row is
// computed alone, so a vector does not depend on its batch, not even in its last bit.
//
// No template of the standard library may be instantiated here: its code would be compiled with these instructions, and
// the linker may take it for callers that must do without.

#include "encoder.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <immintrin.h>
#include <math.h>
#include <string.h>

// Under AddressSanitizer (`make sanitize`) the parts of the working memory have poisoned gaps between them.
#if defined(__SANITIZE_ADDRESS__)
#define GAPS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GAPS 1
#endif
#endif
#if defined(GAPS)
#include <sanitizer/asan_interface.h>
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8,fma")
#endif

namespace sbmini {
namespace {

constexpr int LANES = 16;       // floats in a register
constexpr int PANEL = 64;       // columns that one pass over the rows computes
constexpr int TILE = 16;        // rows and columns of an AMX tile
constexpr int CHUNK = 96;       // tokens that go through the feed-forward part together: their bytes stay in L2
constexpr int QUERIES = 8;      // that attention takes together

#define INLINE inline __attribute__((always_inline))

// Sums that must stay in registers are variables of their own: compilers keep arrays of them in memory. M is written for each row.
#define SIX(M) M(0) M(1) M(2) M(3) M(4) M(5)
#define EIGHT(M) SIX(M) M(6) M(7)

INLINE int round_up(int n, int to) { return (n + to - 1) / to * to; }

INLINE __m128i to_bytes(__m512 scaled, __m512i zero_point) {
    scaled = _mm512_min_ps(_mm512_set1_ps(255.0f), scaled);  // what is beyond an int32 would become the lowest one
    const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(scaled), zero_point);
    return _mm512_cvtusepi32_epi8(_mm512_max_epi32(q, _mm512_setzero_si512()));
}

// exp for arguments from -87 to 0, to 2 units in the last place; below -87 it is that of -87.
INLINE __m512 exponential(__m512 x) {
    const __m512 log2e = _mm512_set1_ps(1.44269504088896341f);
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, log2e), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

// GELU with the error function: x Phi(x) = max(x, 0) - h(|x|), h(a) = a (1 - Phi(a)). h is read from 32 cubics of 0.17 each,
// held in registers; beyond the last one it is 0. The largest error is 1e-6.
struct Gelu {
    static constexpr float STEPS_PER_UNIT = 1 / 0.17f;
    __m512 table[4][2];

    INLINE Gelu() {
        alignas(64) float c[4][32];
        for (int i = 0; i < 32; ++i) {
            double h[4];  // at a third of the step each: the cubic goes through them
            for (int j = 0; j < 4; ++j) {
                const double a = (i + j / 3.0) * 0.17;
                h[j] = 0.5 * a * erfc(a * 0.70710678118654752);
            }
            c[0][i] = static_cast<float>(h[0]);
            c[1][i] = static_cast<float>(-5.5 * h[0] + 9 * h[1] - 4.5 * h[2] + h[3]);
            c[2][i] = static_cast<float>(9 * h[0] - 22.5 * h[1] + 18 * h[2] - 4.5 * h[3]);
            c[3][i] = static_cast<float>(-4.5 * h[0] + 13.5 * h[1] - 13.5 * h[2] + 4.5 * h[3]);
        }
        for (int k = 0; k < 4; ++k)
            for (int half = 0; half < 2; ++half) table[k][half] = _mm512_load_ps(c[k] + 16 * half);
    }

    INLINE __m512 operator()(__m512 x) const {
        const __m512 step = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(STEPS_PER_UNIT));
        const __mmask16 inside = _mm512_cmp_ps_mask(step, _mm512_set1_ps(32.0f), _CMP_LT_OQ);
        const __m512i i = _mm512_cvttps_epi32(step);
        const __m512 t = _mm512_sub_ps(step, _mm512_cvtepi32_ps(i));
        __m512 h = _mm512_permutex2var_ps(table[3][0], i, table[3][1]);
        h = _mm512_fmadd_ps(h, t, _mm512_permutex2var_ps(table[2][0], i, table[2][1]));
        h = _mm512_fmadd_ps(h, t, _mm512_permutex2var_ps(table[1][0], i, table[1][1]));
        h = _mm512_fmadd_ps(h, t, _mm512_permutex2var_ps(table[0][0], i, table[0][1]));
        const __m512 above = _mm512_max_ps(x, _mm512_setzero_ps());
        return _mm512_mask_sub_ps(above, inside, above, h);
    }
};

// What becomes of sixteen of a product's sums.
struct Store {
    float* out;
    int stride;
    INLINE void operator()(int row, int column, __m512 y) const {
        _mm512_storeu_ps(out + static_cast<size_t>(row) * stride + column, y);
    }
};

struct AddTo {
    float* out;
    int stride;
    INLINE void operator()(int row, int column, __m512 y) const {
        float* at = out + static_cast<size_t>(row) * stride + column;
        _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), y));
    }
};

struct GeluBytes {
    const Gelu& gelu;
    const float* factor;
    __m512i zero_point;
    uint8_t* out;
    int stride;
    INLINE void operator()(int row, int column, __m512 y) const {
        const __m512 scaled = _mm512_mul_ps(gelu(y), _mm512_loadu_ps(factor + column));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + static_cast<size_t>(row) * stride + column),
                         to_bytes(scaled, zero_point));
    }
};

// Sums of ROWS rows, at most 6, and 64 columns with VNNI; out: [ROWS][64]. Not inlined: what follows would take its registers.
template <int ROWS>
__attribute__((noinline)) void sums_vnni(const uint8_t* x, const Product& p, int row, int column, int32_t* out) {
    const int groups = p.in / 4;
    const size_t next = static_cast<size_t>(p.in) * LANES;  // bytes from one panel of 16 columns to the next
    const int8_t* panel = p.packed + static_cast<size_t>(column) * p.in;
    const uint8_t* a = x + static_cast<size_t>(row) * p.in;
#define DECLARE(r) __m512i s##r##0 = _mm512_setzero_si512(), s##r##1 = s##r##0, s##r##2 = s##r##0, s##r##3 = s##r##0;
    SIX(DECLARE)
#undef DECLARE
    for (int g = 0; g < groups; ++g, panel += 64, a += 4) {
        const __m512i w0 = _mm512_load_si512(panel), w1 = _mm512_load_si512(panel + next);
        const __m512i w2 = _mm512_load_si512(panel + 2 * next), w3 = _mm512_load_si512(panel + 3 * next);
#define ADD(r)                                               \
    if (ROWS > r) {                                          \
        int32_t four;                                        \
        memcpy(&four, a + static_cast<size_t>(r) * p.in, 4); \
        const __m512i v = _mm512_set1_epi32(four);           \
        s##r##0 = _mm512_dpbusd_epi32(s##r##0, v, w0);       \
        s##r##1 = _mm512_dpbusd_epi32(s##r##1, v, w1);       \
        s##r##2 = _mm512_dpbusd_epi32(s##r##2, v, w2);       \
        s##r##3 = _mm512_dpbusd_epi32(s##r##3, v, w3);       \
    }
        SIX(ADD)
#undef ADD
    }
#define FINISH(r)                                            \
    if (ROWS > r) {                                          \
        _mm512_store_si512(out + r * PANEL, s##r##0);        \
        _mm512_store_si512(out + r * PANEL + 16, s##r##1);   \
        _mm512_store_si512(out + r * PANEL + 32, s##r##2);   \
        _mm512_store_si512(out + r * PANEL + 48, s##r##3);   \
    }
    SIX(FINISH)
#undef FINISH
}

// Scales sums, adds the bias, and hands them on, sixteen at a time; sums: [rows][COLUMNS].
template <int COLUMNS, class Then>
INLINE void finish(const int32_t* sums, int rows, int row, int column, const Product& p, const Then& then) {
    for (int c = 0; c < COLUMNS; c += LANES) {
        const __m512 multiplier = _mm512_load_ps(p.multiplier + column + c);
        const __m512 addend = _mm512_load_ps(p.addend + column + c);
        for (int r = 0; r < rows; ++r)
            then(row + r, column + c,
                 _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums + r * COLUMNS + c)), multiplier, addend));
    }
}

template <class Then>
void multiply_vnni(const uint8_t* x, int rows, const Product& p, const Then& then) {
    alignas(64) int32_t sums[6 * PANEL];
    for (int column = 0; column < p.out; column += PANEL)
        for (int row = 0; row < rows; row += 6) {
            const int count = rows - row < 6 ? rows - row : 6;
            switch (count) {
                case 6: sums_vnni<6>(x, p, row, column, sums); break;
                case 5: sums_vnni<5>(x, p, row, column, sums); break;
                case 4: sums_vnni<4>(x, p, row, column, sums); break;
                case 3: sums_vnni<3>(x, p, row, column, sums); break;
                case 2: sums_vnni<2>(x, p, row, column, sums); break;
                default: sums_vnni<1>(x, p, row, column, sums); break;
            }
            finish<PANEL>(sums, count, row, column, p, then);
        }
}

// Two by two tiles of 16 x 16 sums; the rows of x are allocated up to a multiple of 32.
template <class Then>
void multiply_amx(const uint8_t* x, int rows, const Product& p, const Then& then) {
    __asm__ volatile("" ::: "memory");  // some compilers do not know that _tile_loadd reads memory
    alignas(64) int32_t sums[2 * TILE * 2 * TILE];
    constexpr int SUMS = 2 * TILE * sizeof(int32_t);
    const size_t next = static_cast<size_t>(p.in) * LANES;
    for (int column = 0; column < p.out; column += 2 * TILE) {
        const int8_t* panel = p.packed + static_cast<size_t>(column) * p.in;
        for (int row = 0; row < rows; row += 2 * TILE) {
            const uint8_t* upper = x + static_cast<size_t>(row) * p.in;
            const uint8_t* lower = upper + static_cast<size_t>(TILE) * p.in;
            const int left = rows - row < 2 * TILE ? rows - row : 2 * TILE;
            const bool both = left > TILE;
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
            }
            _tile_stored(0, sums, SUMS);
            _tile_stored(1, sums + TILE, SUMS);
            _tile_stored(2, sums + TILE * 2 * TILE, SUMS);
            _tile_stored(3, sums + TILE * 2 * TILE + TILE, SUMS);
            finish<2 * TILE>(sums, left, row, column, p, then);
        }
    }
}

template <class Then>
INLINE void multiply(Level level, const uint8_t* x, int rows, const Product& p, const Then& then) {
    if (level == AMX)
        multiply_amx(x, rows, p, then);
    else
        multiply_vnni(x, rows, p, then);
}

// LayerNorm of a row in place, and the row as bytes for the next product, if there is one.
INLINE void normalize(float* x, int hidden, const Norm& norm, float epsilon, const Product* next, uint8_t* bytes) {
    __m512 total = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (int c = 0; c < hidden; c += LANES) total = _mm512_add_ps(total, _mm512_loadu_ps(x + c));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(total) / static_cast<float>(hidden));
    for (int c = 0; c < hidden; c += LANES) {
        const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(x + c), mean);
        squares = _mm512_fmadd_ps(d, d, squares);
    }
    const float variance = _mm512_reduce_add_ps(squares) / static_cast<float>(hidden);
    const __m512 inverse = _mm512_set1_ps(1.0f / sqrtf(variance + epsilon));
    const __m512i zero_point = _mm512_set1_epi32(next ? next->zero_point : 0);
    for (int c = 0; c < hidden; c += LANES) {
        const __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + c), mean), inverse);
        const __m512 y = _mm512_fmadd_ps(d, _mm512_load_ps(norm.weight + c), _mm512_load_ps(norm.bias + c));
        _mm512_storeu_ps(x + c, y);
        if (next)
            _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + c),
                             to_bytes(_mm512_mul_ps(y, _mm512_load_ps(next->factor + c)), zero_point));
    }
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
        _mm512_store_ps(out + i * LANES, _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88));
        _mm512_store_ps(out + (i + 8) * LANES, _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd));
        _mm512_store_ps(out + (i + 4) * LANES, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88));
        _mm512_store_ps(out + (i + 12) * LANES, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd));
    }
}

// Scores of QUERIES queries, `row` floats apart (the last of `count` repeated), with 16 * PANELS keys; keys: [key / 16][depth][16].
template <int PANELS>
INLINE void scores(const float* queries, size_t row, int count, const float* keys, int depth, float* out, int stride) {
    const float* upper = keys + static_cast<size_t>(depth) * LANES;
#define DECLARE(q)                                                                     \
    const float* query##q = queries + static_cast<size_t>(q < count ? q : count - 1) * row; \
    __m512 low##q = _mm512_setzero_ps(), high##q = low##q;
    EIGHT(DECLARE)
#undef DECLARE
    for (int d = 0; d < depth; ++d) {
        const __m512 low = _mm512_load_ps(keys + d * LANES);
        const __m512 high = PANELS > 1 ? _mm512_load_ps(upper + d * LANES) : low;
#define ADD(q)                                                       \
    {                                                                \
        const __m512 v = _mm512_set1_ps(query##q[d]);                \
        low##q = _mm512_fmadd_ps(v, low, low##q);                    \
        if (PANELS > 1) high##q = _mm512_fmadd_ps(v, high, high##q);  \
    }
        EIGHT(ADD)
#undef ADD
    }
#define FINISH(q)                                    \
    _mm512_store_ps(out + q * stride, low##q);       \
    if (PANELS > 1) _mm512_store_ps(out + q * stride + LANES, high##q);
    EIGHT(FINISH)
#undef FINISH
}

// Attention of one text and one head. qkv: its first token's query; tokens are `row` floats apart, key and value `hidden` after
// the query. bytes: where the head's part of the first token goes, as input of `next`.
void attend(const float* qkv, int tokens, int row, int hidden, int depth, const Product& next, int column, uint8_t* bytes,
            float* keys, float* weights) {
    const int padded = round_up(tokens, LANES);
    for (int first = 0; first < padded; first += LANES)
        for (int d = 0; d < depth; d += LANES)
            transpose(qkv + static_cast<size_t>(first) * row + hidden + d, row, tokens - first,
                      keys + static_cast<size_t>(first) * depth + d * LANES);
    const __mmask16 last = static_cast<__mmask16>(0xffffu >> (padded - tokens));
    const __m512 lowest = _mm512_set1_ps(-INFINITY);
    const __m512i zero_point = _mm512_set1_epi32(next.zero_point);
    const float* values = qkv + 2 * static_cast<size_t>(hidden);
    for (int first = 0; first < tokens; first += QUERIES) {
        const int count = tokens - first < QUERIES ? tokens - first : QUERIES;
        const float* queries = qkv + static_cast<size_t>(first) * row;
        int key = 0;
        for (; key + 2 * LANES <= padded; key += 2 * LANES)
            scores<2>(queries, row, count, keys + static_cast<size_t>(key) * depth, depth, weights + key, padded);
        if (key < padded) scores<1>(queries, row, count, keys + static_cast<size_t>(key) * depth, depth, weights + key, padded);
        float inverse[QUERIES];
        for (int q = 0; q < QUERIES; ++q) {
            float* w = weights + q * padded;
            float* tail = w + padded - LANES;
            _mm512_store_ps(tail, _mm512_mask_blend_ps(last, lowest, _mm512_load_ps(tail)));
            __m512 top = lowest, total = _mm512_setzero_ps();
            for (int k = 0; k < padded; k += LANES) top = _mm512_max_ps(top, _mm512_load_ps(w + k));
            const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(top));
            for (int k = 0; k < padded; k += LANES) {
                const __m512 e = exponential(_mm512_sub_ps(_mm512_load_ps(w + k), largest));
                _mm512_store_ps(w + k, e);
                if (k + LANES < padded) total = _mm512_add_ps(total, e);
                else total = _mm512_mask_add_ps(total, last, total, e);
            }
            inverse[q] = 1.0f / _mm512_reduce_add_ps(total);
        }
        for (int d = 0; d < depth; d += 2 * LANES) {
#define DECLARE(q) __m512 low##q = _mm512_setzero_ps(), high##q = low##q;
            EIGHT(DECLARE)
#undef DECLARE
            for (int k = 0; k < tokens; ++k) {
                const float* value = values + static_cast<size_t>(k) * row + d;
                const __m512 low = _mm512_loadu_ps(value), high = _mm512_loadu_ps(value + LANES);
#define ADD(q)                                                       \
    {                                                                \
        const __m512 w = _mm512_set1_ps(weights[q * padded + k]);    \
        low##q = _mm512_fmadd_ps(w, low, low##q);                    \
        high##q = _mm512_fmadd_ps(w, high, high##q);                 \
    }
                EIGHT(ADD)
#undef ADD
            }
            const __m512 low_factor = _mm512_loadu_ps(next.factor + column + d);
            const __m512 high_factor = _mm512_loadu_ps(next.factor + column + d + LANES);
#define FINISH(q)                                                                                                      \
    if (q < count) {                                                                                                   \
        const __m512 scale = _mm512_set1_ps(inverse[q]);                                                               \
        __m128i* to = reinterpret_cast<__m128i*>(bytes + static_cast<size_t>(first + q) * hidden + d);                 \
        _mm_storeu_si128(to, to_bytes(_mm512_mul_ps(_mm512_mul_ps(low##q, scale), low_factor), zero_point));           \
        _mm_storeu_si128(to + 1, to_bytes(_mm512_mul_ps(_mm512_mul_ps(high##q, scale), high_factor), zero_point));     \
    }
            EIGHT(FINISH)
#undef FINISH
        }
    }
}

#if defined(GAPS)
constexpr size_t GAP = 64;  // bytes
#else
constexpr size_t GAP = 0;
#endif
constexpr size_t PARTS = 6;

// The working memory, handed out in `PARTS` parts.
struct Arena {
    char* at;
    template <class T>
    INLINE T* take(size_t count) {
        T* part = reinterpret_cast<T*>(at);
        at += (count * sizeof(T) + 63) / 64 * 64;
#if defined(GAPS)
        ASAN_POISON_MEMORY_REGION(at, GAP);
#endif
        at += GAP;
        return part;
    }
};

struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_a_row[16] = {};
    uint8_t rows[16] = {};
};

}  // namespace

size_t scratch_bytes(const Model& m, int tokens, int longest) {
    const size_t rows = round_up(tokens, 2 * TILE), hidden = m.hidden;
    return rows * hidden * (4 + 4 * 3 + 1) + static_cast<size_t>(round_up(CHUNK, 2 * TILE)) * m.intermediate +
           static_cast<size_t>(round_up(longest, LANES)) * (hidden / m.heads + QUERIES) * 4 + (64 + GAP) * PARTS;
}

void run(const Model& m, Level level, const int32_t* ids, const int32_t* type_ids, const int32_t* offsets, int texts,
         float* vectors, void* scratch) {
    const int hidden = m.hidden, depth = hidden / m.heads, tokens = offsets[texts];
    int longest = 0;
    for (int t = 0; t < texts; ++t)
        if (offsets[t + 1] - offsets[t] > longest) longest = offsets[t + 1] - offsets[t];
    const size_t rows = round_up(tokens, 2 * TILE);
#if defined(GAPS)
    ASAN_UNPOISON_MEMORY_REGION(scratch, scratch_bytes(m, tokens, longest));  // the gaps of an earlier call
#endif
    Arena arena{static_cast<char*>(scratch)};
    float* x = arena.take<float>(rows * hidden);
    float* qkv = arena.take<float>(rows * hidden * 3);
    uint8_t* bytes = arena.take<uint8_t>(rows * hidden);
    uint8_t* wide = arena.take<uint8_t>(static_cast<size_t>(round_up(CHUNK, 2 * TILE)) * m.intermediate);
    float* keys = arena.take<float>(static_cast<size_t>(round_up(longest, LANES)) * depth);
    float* weights = arena.take<float>(static_cast<size_t>(round_up(longest, LANES)) * QUERIES);
    const Gelu gelu;
    if (level == AMX) {
        TileConfig config;
        for (int i = 0; i < 8; ++i) {
            config.bytes_a_row[i] = 64;
            config.rows[i] = TILE;
        }
        __asm__ volatile("ldtilecfg %0" ::"m"(config));  // GCC's own _tile_loadconfig reads 8 of the 64 bytes, for all that it knows
    }

    for (int t = 0; t < texts; ++t)
        for (int i = offsets[t]; i < offsets[t + 1]; ++i) {
            const int8_t* word = m.words + static_cast<size_t>(ids[i]) * hidden;
            const float* type = m.type_rows + static_cast<size_t>(type_ids[i]) * hidden;
            const float* position = m.position_rows + static_cast<size_t>(i - offsets[t]) * hidden;
            const __m512 scale = _mm512_set1_ps(m.word_scales[ids[i]]);
            float* row = x + static_cast<size_t>(i) * hidden;
            for (int c = 0; c < hidden; c += LANES) {
                const __m512i q = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(word + c)));
                const __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(q), scale, _mm512_load_ps(type + c));
                _mm512_storeu_ps(row + c, _mm512_add_ps(y, _mm512_load_ps(position + c)));
            }
            normalize(row, hidden, m.norm, m.epsilon, &m.layer[0].products[QKV], bytes + static_cast<size_t>(i) * hidden);
        }

    for (int l = 0; l < m.layers; ++l) {
        const Layer& layer = m.layer[l];
        const Product* after = l + 1 < m.layers ? &m.layer[l + 1].products[QKV] : nullptr;
        multiply(level, bytes, tokens, layer.products[QKV], Store{qkv, 3 * hidden});
        for (int t = 0; t < texts; ++t) {
            const size_t begin = offsets[t];
            for (int head = 0; head < m.heads; ++head)
                attend(qkv + begin * 3 * hidden + head * depth, offsets[t + 1] - offsets[t], 3 * hidden, hidden, depth,
                       layer.products[ATTENTION], head * depth, bytes + begin * hidden + head * depth, keys, weights);
        }
        multiply(level, bytes, tokens, layer.products[ATTENTION], AddTo{x, hidden});
        const Product& narrow = layer.products[NARROW];
        for (int first = 0; first < tokens; first += CHUNK) {
            const int count = tokens - first < CHUNK ? tokens - first : CHUNK;
            float* part = x + static_cast<size_t>(first) * hidden;
            uint8_t* part_bytes = bytes + static_cast<size_t>(first) * hidden;
            for (int i = 0; i < count; ++i)
                normalize(part + static_cast<size_t>(i) * hidden, hidden, layer.norms[0], m.epsilon, &layer.products[WIDE],
                          part_bytes + static_cast<size_t>(i) * hidden);
            multiply(level, part_bytes, count, layer.products[WIDE],
                     GeluBytes{gelu, narrow.factor, _mm512_set1_epi32(narrow.zero_point), wide, m.intermediate});
            multiply(level, wide, count, narrow, AddTo{part, hidden});
            for (int i = 0; i < count; ++i)
                normalize(part + static_cast<size_t>(i) * hidden, hidden, layer.norms[1], m.epsilon, after,
                          part_bytes + static_cast<size_t>(i) * hidden);
        }
    }
    if (level == AMX) _tile_release();

    for (int t = 0; t < texts; ++t) {
        float* out = vectors + static_cast<size_t>(t) * hidden;
        const int begin = offsets[t], end = offsets[t + 1];
        __m512 squares = _mm512_setzero_ps();
        for (int c = 0; c < hidden; c += LANES) {
            __m512 total = _mm512_setzero_ps();
            for (int i = begin; i < end; ++i)
                total = _mm512_add_ps(total, _mm512_loadu_ps(x + static_cast<size_t>(i) * hidden + c));
            total = _mm512_div_ps(total, _mm512_set1_ps(static_cast<float>(end - begin)));
            squares = _mm512_fmadd_ps(total, total, squares);
            _mm512_storeu_ps(out + c, total);
        }
        const float length = sqrtf(_mm512_reduce_add_ps(squares));
        const __m512 inverse = _mm512_set1_ps(1.0f / (length > 1e-12f ? length : 1e-12f));
        for (int c = 0; c < hidden; c += LANES) _mm512_storeu_ps(out + c, _mm512_mul_ps(_mm512_loadu_ps(out + c), inverse));
    }
}

}  // namespace sbmini

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
