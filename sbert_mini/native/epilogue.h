// What becomes of a product's sums: they leave the registers scaled, with bias, residual or activation, and as bytes for the next
// product. Included by each level after its lanes.
#include "activation.h"

namespace sbmini {
namespace LEVEL {
namespace {

// Floats as the bytes that a product reads. NaN becomes 0.
struct Quantizer {
    F lowest, highest;
    I zero_point;
    INLINE explicit Quantizer(int zero)
        : lowest(splat(static_cast<float>(-zero))), highest(splat(static_cast<float>(255 - zero))), zero_point(splat_int(zero)) {}
    INLINE void operator()(uint8_t* to, F scaled) const {
        store_bytes(to, greater(lesser(highest, scaled), lowest), zero_point);
    }
};

// GELU and the like: activation.h. NaN becomes nearly 0.
struct Activated {
    F coefficient[DEGREE + 1];
    INLINE explicit Activated(const float* tail) {
        for (int n = 0; n <= DEGREE; ++n) coefficient[n] = splat(tail[n]);
    }
    INLINE F operator()(F x) const {
        const F u = lesser(fma(absolute(x), splat(2 / REACH), splat(-1.0f)), splat(1.0f));
        const F v = mul(u, u);  // even and odd powers apart: two chains of operations, which the processor runs side by side
        F even = coefficient[12], odd = coefficient[13];
#define TERM(n) even = fma(even, v, coefficient[n]), odd = fma(odd, v, coefficient[n + 1]);
        TERM(10) TERM(8) TERM(6) TERM(4) TERM(2) TERM(0)
#undef TERM
        const F p = fma(odd, u, even);
        return sub(greater(x, zero()), p);
    }
};

struct Store {
    float* out;
    int stride;
    INLINE void operator()(int row, int column, F y) const { store(out + static_cast<size_t>(row) * stride + column, y); }
};

struct AddTo {
    float* out;
    int stride;
    INLINE void operator()(int row, int column, F y) const {
        float* at = out + static_cast<size_t>(row) * stride + column;
        store(at, add(load(at), y));
    }
};

struct ActivatedBytes {
    Activated activated;
    const float* factor;
    Quantizer quantizer;
    uint8_t* out;
    int stride;
    INLINE void operator()(int row, int column, F y) const {
        quantizer(out + static_cast<size_t>(row) * stride + column, mul(activated(y), load(factor + column)));
    }
};

// Scales sums, adds the bias, and hands them on, sixteen at a time; sums: [rows][COLUMNS].
template <int COLUMNS, class Then>
INLINE void finish(const int32_t* sums, int rows, int row, int column, const Product& p, const Then& given) {
    const Then then = given;  // a copy that no store can alter: it stays in registers
    for (int c = 0; c < COLUMNS; c += LANES) {
        const F multiplier = load(p.multiplier + column + c), addend = load(p.addend + column + c);
        for (int r = 0; r < rows; ++r)
            then(row + r, column + c, fma(to_float(load_int(sums + r * COLUMNS + c)), multiplier, addend));
    }
}

// The sums as they are, for tests: of an epilogue that takes integers.
struct Raw {
    int32_t* out;
    int stride;
};
template <int COLUMNS>
INLINE void finish(const int32_t* sums, int rows, int row, int column, const Product&, const Raw& raw) {
    for (int r = 0; r < rows; ++r)
        memcpy(raw.out + static_cast<size_t>(row + r) * raw.stride + column, sums + r * COLUMNS, COLUMNS * sizeof(int32_t));
}

}  // namespace
}  // namespace LEVEL
}  // namespace sbmini
