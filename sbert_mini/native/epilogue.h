// What becomes of a product's sums: they leave the registers scaled, with bias, residual or activation, and as bytes for the next
// product. Included by each level after its lanes.
#include "activation.h"

namespace sbmini {
namespace LEVEL {
namespace {

constexpr float SHIFT = 12582912.0f;  // 1.5 * 2^23: a sum with it is rounded to a whole number, which stands in its last bits

// Floats as the bytes that a product reads: rint(x * factor + zero_point), from 0 to 255. NaN becomes 0.
struct Quantizer {
    F addend, lowest, highest;
    INLINE explicit Quantizer(int zero_point)
        : addend(splat(SHIFT + static_cast<float>(zero_point))), lowest(splat(SHIFT)), highest(splat(SHIFT + 255.0f)) {}
    INLINE void operator()(uint8_t* to, F x, F factor) const {
        store_last_bytes(to, greater(lesser(highest, fma(x, factor, addend)), lowest));
    }
};

// GELU: activation.h.
struct Gelu {
    F coefficient[DEGREE + 1];
    INLINE explicit Gelu(const float* phi) {
        for (int n = 0; n <= DEGREE; ++n) coefficient[n] = splat(phi[n]);
    }
    INLINE F operator()(F x) const {
        const F w = within(mul(x, splat(PER_UNIT)), splat(ENDS));
        const F u = fma(w, w, splat(-1.0f));
        F q = coefficient[DEGREE];
#define TERM(n) q = fma(q, u, coefficient[n]);
        TERM(7) TERM(6) TERM(5) TERM(4) TERM(3) TERM(2) TERM(1) TERM(0)
#undef TERM
        return mul(x, fma(w, q, splat(0.5f)));
    }
};

struct Relu {
    INLINE F operator()(F x) const { return greater(x, zero()); }
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

template <class Activation>
struct ActivatedBytes {
    Activation activated;
    const float* factor;
    Quantizer quantizer;
    uint8_t* out;
    int stride;
    INLINE void operator()(int row, int column, F y) const {
        quantizer(out + static_cast<size_t>(row) * stride + column, activated(y), load(factor + column));
    }
};

// Columns of a product, from a multiple of BLOCK to another.
struct Columns {
    int begin, end;
};

INLINE Columns all_of(const Product& p) { return {0, p.out}; }

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
