// The operations of lanes_avx512.h, with four registers of NEON.
#include <arm_neon.h>
#include <string.h>

namespace sbmini {
namespace LEVEL {
namespace {

#define INLINE inline __attribute__((always_inline))

constexpr int LANES = 16;
constexpr int QUERIES = 4;
constexpr int VECTORS = 1;

struct F {
    float32x4_t a, b, c, d;
};
struct I {
    int32x4_t a, b, c, d;
};

#define EACH(operation, x, y) {operation(x.a, y.a), operation(x.b, y.b), operation(x.c, y.c), operation(x.d, y.d)}

INLINE float32x4_t smaller(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
INLINE float32x4_t larger(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
INLINE float32x4_t signed_as(float32x4_t x, float32x4_t sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, x); }
INLINE float32x4_t shifted_power(float32x4_t p, float32x4_t shifted) {
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), vshlq_n_s32(vreinterpretq_s32_f32(shifted), 23)));
}

INLINE F splat(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x)}; }
INLINE F zero() { return splat(0.0f); }
INLINE F load(const float* from) { return {vld1q_f32(from), vld1q_f32(from + 4), vld1q_f32(from + 8), vld1q_f32(from + 12)}; }
INLINE void store(float* to, F x) {
    vst1q_f32(to, x.a);
    vst1q_f32(to + 4, x.b);
    vst1q_f32(to + 8, x.c);
    vst1q_f32(to + 12, x.d);
}
INLINE F add(F x, F y) { return EACH(vaddq_f32, x, y); }
INLINE F sub(F x, F y) { return EACH(vsubq_f32, x, y); }
INLINE F mul(F x, F y) { return EACH(vmulq_f32, x, y); }
INLINE F divide(F x, F y) { return EACH(vdivq_f32, x, y); }
INLINE F fma(F x, F y, F z) {
    return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)};
}
INLINE F fnma(F x, F y, F z) {
    return {vfmsq_f32(z.a, x.a, y.a), vfmsq_f32(z.b, x.b, y.b), vfmsq_f32(z.c, x.c, y.c), vfmsq_f32(z.d, x.d, y.d)};
}
INLINE F lesser(F x, F y) { return EACH(smaller, x, y); }
INLINE F greater(F x, F y) { return EACH(larger, x, y); }
INLINE F within(F x, F ends) { return greater(lesser(x, ends), sub(zero(), ends)); }
INLINE F absolute(F x) { return {vabsq_f32(x.a), vabsq_f32(x.b), vabsq_f32(x.c), vabsq_f32(x.d)}; }
INLINE F with_sign_of(F x, F sign) { return EACH(signed_as, x, sign); }
INLINE I load_int(const int32_t* from) {
    return {vld1q_s32(from), vld1q_s32(from + 4), vld1q_s32(from + 8), vld1q_s32(from + 12)};
}
INLINE I load_bytes(const int8_t* from) {
    const int8x16_t bytes = vld1q_s8(from);
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    return {vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)), vmovl_s16(vget_low_s16(high)),
            vmovl_s16(vget_high_s16(high))};
}
INLINE F to_float(I x) { return {vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b), vcvtq_f32_s32(x.c), vcvtq_f32_s32(x.d)}; }
INLINE F times_power(F p, F shifted) { return EACH(shifted_power, p, shifted); }

INLINE void store_last_bytes(uint8_t* to, F x) {
    const uint16x4_t a = vmovn_u32(vreinterpretq_u32_f32(x.a)), b = vmovn_u32(vreinterpretq_u32_f32(x.b));
    const uint16x4_t c = vmovn_u32(vreinterpretq_u32_f32(x.c)), d = vmovn_u32(vreinterpretq_u32_f32(x.d));
    vst1q_u8(to, vcombine_u8(vmovn_u16(vcombine_u16(a, b)), vmovn_u16(vcombine_u16(c, d))));
}

INLINE F keep_first(F x, int count, F other) {
    float kept[LANES];
    store(kept, other);
    float given[LANES];
    store(given, x);
    for (int i = 0; i < LANES; ++i) kept[i] = i < count ? given[i] : kept[i];
    return load(kept);
}

INLINE float sum(F x) {
    const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

INLINE float largest(F x) {
    float lane[LANES];
    store(lane, x);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
    return lane[0];
}

INLINE void transpose_4(const float* from, size_t stride, int first, int rows, float* out) {
    float32x4_t r[4];
    for (int i = 0; i < 4; ++i)
        r[i] = vld1q_f32(from + static_cast<size_t>(first + i < rows ? first + i : rows - 1) * stride);
    const float32x4x2_t low = vtrnq_f32(r[0], r[1]), high = vtrnq_f32(r[2], r[3]);
    vst1q_f32(out, vcombine_f32(vget_low_f32(low.val[0]), vget_low_f32(high.val[0])));
    vst1q_f32(out + LANES, vcombine_f32(vget_low_f32(low.val[1]), vget_low_f32(high.val[1])));
    vst1q_f32(out + 2 * LANES, vcombine_f32(vget_high_f32(low.val[0]), vget_high_f32(high.val[0])));
    vst1q_f32(out + 3 * LANES, vcombine_f32(vget_high_f32(low.val[1]), vget_high_f32(high.val[1])));
}

INLINE void transpose(const float* from, size_t stride, int rows, float* out) {
    for (int column = 0; column < LANES; column += 4)
        for (int row = 0; row < LANES; row += 4) transpose_4(from + column, stride, row, rows, out + column * LANES + row);
}

#undef EACH

}  // namespace
}  // namespace LEVEL
}  // namespace sbmini
