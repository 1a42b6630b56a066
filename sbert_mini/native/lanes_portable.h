// The operations of lanes_avx512.h in plain C++, for every processor whose floats are IEEE 754's.
#include <string.h>

namespace sbmini {
namespace LEVEL {
namespace {

#define INLINE inline __attribute__((always_inline))

constexpr int LANES = 16;
constexpr int QUERIES = 4;
constexpr int VECTORS = 1;

struct F {
    float lane[LANES];
};
struct I {
    int32_t lane[LANES];
};

#define EACH(result, expression) \
    result r;                    \
    for (int i = 0; i < LANES; ++i) r.lane[i] = (expression); \
    return r

// a b + c, rounded once. Without an instruction for it: the product is exact in double; the sum is rounded to odd there (its last
// bit is set where something was lost), so that rounding to float is the only rounding. Source: Boldo and Melquiond 2008,
// "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd".
INLINE float fused(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__)
    return __builtin_fmaf(a, b, c);
#else
    const double product = static_cast<double>(a) * b;
    const double total = product + c;
    const double part = total - product;
    const double lost = (product - (total - part)) + (c - part);
    int64_t bits;
    memcpy(&bits, &total, 8);
    // without branches, so that compilers use vectors; where the total is not finite, what is lost is NaN
    const int64_t above = lost > 0 ? -1 : 0, below = lost < 0 ? -1 : 0, positive = total > 0 ? -1 : 0;
    const int64_t is_even = (bits & 1) - 1, step = (~(above ^ positive) & 2) - 1;  // away from 0 is 1
    bits += (above | below) & is_even & step;
    double odd;
    memcpy(&odd, &bits, 8);
    return static_cast<float>(odd);
#endif
}

INLINE float power_scaled(float p, float shifted) {
    uint32_t bits, n;
    memcpy(&bits, &p, 4);
    memcpy(&n, &shifted, 4);
    bits += n << 23;
    memcpy(&p, &bits, 4);
    return p;
}

INLINE F splat(float x) { EACH(F, x); }
INLINE F zero() { return splat(0.0f); }
INLINE F load(const float* from) { EACH(F, from[i]); }
INLINE void store(float* to, F x) { memcpy(to, x.lane, sizeof x.lane); }
INLINE F add(F a, F b) { EACH(F, a.lane[i] + b.lane[i]); }
INLINE F sub(F a, F b) { EACH(F, a.lane[i] - b.lane[i]); }
INLINE F mul(F a, F b) { EACH(F, a.lane[i] * b.lane[i]); }
INLINE F divide(F a, F b) { EACH(F, a.lane[i] / b.lane[i]); }
INLINE F fma(F a, F b, F c) { EACH(F, fused(a.lane[i], b.lane[i], c.lane[i])); }
INLINE F fnma(F a, F b, F c) { EACH(F, fused(-a.lane[i], b.lane[i], c.lane[i])); }
INLINE F lesser(F a, F b) { EACH(F, a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
INLINE F greater(F a, F b) { EACH(F, a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
INLINE F within(F x, F ends) { return greater(lesser(x, ends), sub(zero(), ends)); }
INLINE F absolute(F x) { EACH(F, __builtin_fabsf(x.lane[i])); }
INLINE F with_sign_of(F x, F sign) { EACH(F, __builtin_copysignf(x.lane[i], sign.lane[i])); }
INLINE I load_int(const int32_t* from) { EACH(I, from[i]); }
INLINE I load_bytes(const int8_t* from) { EACH(I, from[i]); }
INLINE F to_float(I x) { EACH(F, static_cast<float>(x.lane[i])); }
INLINE F times_power(F p, F shifted) { EACH(F, power_scaled(p.lane[i], shifted.lane[i])); }

INLINE void store_last_bytes(uint8_t* to, F x) {
    uint32_t bits[LANES];
    memcpy(bits, x.lane, sizeof bits);
    for (int i = 0; i < LANES; ++i) to[i] = static_cast<uint8_t>(bits[i]);
}

INLINE F keep_first(F x, int count, F other) { EACH(F, i < count ? x.lane[i] : other.lane[i]); }

INLINE float sum(F x) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) x.lane[i] = x.lane[i] + x.lane[i + half];
    return x.lane[0];
}

INLINE float largest(F x) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) x.lane[i] = x.lane[i] > x.lane[i + half] ? x.lane[i] : x.lane[i + half];
    return x.lane[0];
}

INLINE void transpose(const float* from, size_t stride, int rows, float* out) {
    for (int row = 0; row < LANES; ++row)
        for (int column = 0; column < LANES; ++column)
            out[column * LANES + row] = from[static_cast<size_t>(row < rows ? row : rows - 1) * stride + column];
}

#undef EACH

}  // namespace
}  // namespace LEVEL
}  // namespace sbmini
