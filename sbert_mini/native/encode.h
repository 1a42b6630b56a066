// The encoder, compiled once for each level: included after the level's lanes and its `multiply`.
//
// It computes what the int8 graph computes (sbert_mini/runtime/graph.py), and keeps what lies between two products in cache
// (epilogue.h). Texts are not padded: the tokens of a batch stand one after the other, and only attention knows where a text ends.
// Every token's row is computed alone, so a vector does not depend on its batch, not even in its last bit.
//
// Nor does it depend on the level. Sums of bytes are exact in 32 bits. Floats go through the operations of lanes_*.h alone, one
// after the other as they are written, in sixteen lanes on every level; `sum` has one order. No function of the mathematical
// library is called but the square root, whose result IEEE 754 defines. The flag -ffp-contract=off keeps the compiler from fusing
// more operations than are written.
//
// No template of the standard library may be instantiated here: its code would be compiled with a level's instructions, and
// the linker may take it for callers that must do without.

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

namespace sbmini {
namespace LEVEL {
namespace {

static_assert(PREPARED * sizeof(Prepared) <= PREPARED_BYTES, "a level needs more working memory");
constexpr int CHUNK = 96;  // tokens that go through a layer's products together: their bytes stay in the second cache

// Sums that must stay in registers are variables of their own: compilers keep arrays of them in memory. M is written for each one.
#define EIGHT(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)

INLINE int round_up(int n, int to) { return (n + to - 1) / to * to; }
INLINE float square_root(float x) { return __builtin_sqrtf(x); }

// 2^x for arguments from -125 to 0, to 2e-7 of it; below -125 it is that of -125.
INLINE F power_of_2(F x) {
    x = greater(x, splat(-125.0f));
    const F shifted = add(x, splat(SHIFT));
    const F r = sub(x, sub(shifted, splat(SHIFT)));  // from -1/2 to 1/2: exact
    F p = splat(0x1.5bba14p-10f);                    // the least greatest error, relative, of those that give 1 for 0: 9e-8
    p = fma(p, r, splat(0x1.3cea88p-7f));
    p = fma(p, r, splat(0x1.c6b752p-5f));
    p = fma(p, r, splat(0x1.ebf9bcp-3f));
    p = fma(p, r, splat(0x1.62e42ap-1f));
    p = fma(p, r, splat(1.0f));
    return times_power(p, shifted);
}

constexpr float LOG2_E = 0x1.715476p+0f;

// tanh, to 3e-7.
INLINE F hyperbolic_tangent(F x) {
    const F e = power_of_2(mul(absolute(x), splat(-2 * LOG2_E)));
    return with_sign_of(divide(sub(splat(1.0f), e), add(splat(1.0f), e)), x);
}

// LayerNorm of a row in place, of which `hidden` components count; and the row as bytes for the next product, if there is one.
INLINE void normalize(float* x, int hidden, int width, const Norm& norm, float epsilon, const Product* next, uint8_t* bytes) {
    F a = zero(), b = zero(), c = zero(), d = zero();  // four sums, which do not wait for each other
    for (int i = 0; i < width; i += 4 * LANES) {
        a = add(a, load(x + i));
        b = add(b, load(x + i + LANES));
        c = add(c, load(x + i + 2 * LANES));
        d = add(d, load(x + i + 3 * LANES));
    }
    const F mean = splat(sum(add(add(a, b), add(c, d))) / static_cast<float>(hidden));
    a = b = c = d = zero();
    int i = 0;
    for (; i + 4 * LANES <= hidden; i += 4 * LANES) {
        const F p = sub(load(x + i), mean), q = sub(load(x + i + LANES), mean);
        const F r = sub(load(x + i + 2 * LANES), mean), s = sub(load(x + i + 3 * LANES), mean);
        a = fma(p, p, a), b = fma(q, q, b), c = fma(r, r, c), d = fma(s, s, d);
    }
    for (; i < hidden; i += LANES) {
        const F p = keep_first(sub(load(x + i), mean), hidden - i, zero());
        a = fma(p, p, a);
    }
    const float variance = sum(add(add(a, b), add(c, d))) / static_cast<float>(hidden);
    const F inverse = splat(1.0f / square_root(variance + epsilon));
    if (!next) {
        for (i = 0; i < width; i += LANES)
            store(x + i, fma(mul(sub(load(x + i), mean), inverse), load(norm.weight + i), load(norm.bias + i)));
        return;
    }
    const Quantizer quantizer(next->zero_point);
    for (i = 0; i < width; i += LANES) {
        const F y = fma(mul(sub(load(x + i), mean), inverse), load(norm.weight + i), load(norm.bias + i));
        store(x + i, y);
        quantizer(bytes + i, y, load(next->factor + i));
    }
}

// Softmax of a row in place, to the base 2, without the division; what is behind its `count` components becomes about 0. Returns
// 1 / the sum.
INLINE float softmax(float* w, int count, int padded) {
    const F lowest = splat(-__builtin_inff());
    float* tail = w + padded - LANES;
    store(tail, keep_first(load(tail), count - (padded - LANES), lowest));
    F top = lowest, total = zero();
    for (int k = 0; k < padded; k += LANES) top = greater(top, load(w + k));
    const F most = splat(largest(top));
    for (int k = 0; k < padded; k += LANES) {
        const F e = power_of_2(sub(load(w + k), most));
        store(w + k, e);
        total = add(total, e);  // 2^-125 behind the end: it does not alter a sum of 1 or more
    }
    return 1.0f / sum(total);
}

// One head of one text.
struct Head {
    const float* queries;  // of the text's first token; tokens are `row` floats apart
    const float* values;
    const float* keys;     // [key / 16][depth][16]
    float* weights;        // [QUERIES][padded]
    int tokens, padded, row, depth;
};

// Scores of Q queries with 16 * V keys.
template <int Q, int V>
INLINE void scores(const Head& head, const float* queries, int key) {
    const float* first = head.keys + static_cast<size_t>(key) * head.depth;
    const float* second = first + static_cast<size_t>(head.depth) * LANES;
#define DECLARE(q)                                                                                   \
    const float* query##q = queries + static_cast<size_t>(q < Q ? q : 0) * head.row;                 \
    F low##q = zero(), high##q = low##q;
    EIGHT(DECLARE)
#undef DECLARE
    for (int d = 0; d < head.depth; ++d) {
        const F low = load(first + d * LANES);
        const F high = V > 1 ? load(second + d * LANES) : low;
#define ADD(q)                                              \
    if (Q > q) {                                            \
        const F v = splat(query##q[d]);                     \
        low##q = fma(v, low, low##q);                       \
        if (V > 1) high##q = fma(v, high, high##q);         \
    }
        EIGHT(ADD)
#undef ADD
    }
#define FINISH(q)                                                         \
    if (Q > q) {                                                          \
        store(head.weights + q * head.padded + key, low##q);              \
        if (V > 1) store(head.weights + q * head.padded + key + LANES, high##q); \
    }
    EIGHT(FINISH)
#undef FINISH
}

// The values of 16 * V components, weighted for Q queries, as bytes of `next`, whose column is `column`; to: (Q, stride).
template <int Q, int V>
INLINE void weighted(const Head& head, int d, const float* inverse, const Product& next, int column, const Quantizer& quantizer,
                     uint8_t* to, int stride) {
#define DECLARE(q) F low##q = zero(), high##q = low##q;
    EIGHT(DECLARE)
#undef DECLARE
    for (int k = 0; k < head.tokens; ++k) {
        const float* value = head.values + static_cast<size_t>(k) * head.row + d;
        const F low = load(value), high = V > 1 ? load(value + LANES) : low;
#define ADD(q)                                                    \
    if (Q > q) {                                                  \
        const F w = splat(head.weights[q * head.padded + k]);     \
        low##q = fma(w, low, low##q);                             \
        if (V > 1) high##q = fma(w, high, high##q);               \
    }
        EIGHT(ADD)
#undef ADD
    }
    const F low_factor = load(next.factor + column + d);
    const F high_factor = V > 1 ? load(next.factor + column + d + LANES) : low_factor;
#define FINISH(q)                                                                                            \
    if (Q > q) {                                                                                             \
        const F scale = splat(inverse[q]);                                                                   \
        uint8_t* at = to + static_cast<size_t>(q) * stride + d;                                              \
        quantizer(at, mul(low##q, scale), low_factor);                                                       \
        if (V > 1) quantizer(at + LANES, mul(high##q, scale), high_factor);                                  \
    }
    EIGHT(FINISH)
#undef FINISH
}

// Attention of Q queries, the first of them `first`.
template <int Q>
void attend(const Head& head, int first, const Product& next, int column, uint8_t* bytes, int stride) {
    const float* queries = head.queries + static_cast<size_t>(first) * head.row;
    int key = 0;
    for (; key + VECTORS * LANES <= head.padded; key += VECTORS * LANES) scores<Q, VECTORS>(head, queries, key);
    if (key < head.padded) scores<Q, 1>(head, queries, key);
    float inverse[Q];
    for (int q = 0; q < Q; ++q) inverse[q] = softmax(head.weights + q * head.padded, head.tokens, head.padded);
    const Quantizer quantizer(next.zero_point);
    for (int d = 0; d < head.depth; d += VECTORS * LANES)
        weighted<Q, VECTORS>(head, d, inverse, next, column, quantizer, bytes + static_cast<size_t>(first) * stride, stride);
}

// The last queries, fewer than Q + 1.
template <int Q>
INLINE void attend_rest(const Head& head, int first, const Product& next, int column, uint8_t* bytes, int stride) {
    if constexpr (Q > 0) {
        if (head.tokens - first == Q)
            attend<Q>(head, first, next, column, bytes, stride);
        else
            attend_rest<Q - 1>(head, first, next, column, bytes, stride);
    }
}

// Attention of one text and one head. qkv: its first token's query; key and value are `span` after it, and twice that. bytes: where
// the head's part of the first token goes, as input of `next`, whose rows are `span` long.
INLINE void attend_head(const float* qkv, int tokens, int span, int depth, const Product& next, int column, uint8_t* bytes,
                        float* keys, float* weights) {
    const int padded = round_up(tokens, LANES), row = 3 * span;
    for (int first = 0; first < padded; first += LANES)
        for (int d = 0; d < depth; d += LANES)
            transpose(qkv + static_cast<size_t>(first) * row + span + d, row, tokens - first,
                      keys + static_cast<size_t>(first) * depth + d * LANES);
    const Head head{qkv, qkv + 2 * static_cast<size_t>(span), keys, weights, tokens, padded, row, depth};
    int first = 0;
    for (; first + QUERIES <= tokens; first += QUERIES) attend<QUERIES>(head, first, next, column, bytes, span);
    attend_rest<QUERIES - 1>(head, first, next, column, bytes, span);
}

#if defined(GAPS)
constexpr size_t GAP = 64;  // bytes
#else
constexpr size_t GAP = 0;
#endif
constexpr size_t SHARED_PARTS = 5, OWN_PARTS = 5;

// The working memory, handed out part by part.
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

// The parts of the working memory; rows are padded, because tiles are read whole.
struct Parts {
    float* x;           // [rows][width]: the tokens' vectors
    float* qkv;         // [rows][3 * span]
    uint8_t* bytes;     // [rows][width or span]: the next product's input
    uint8_t* attended;  // [rows][span]: what attention gives; `bytes` again where one thread computes
    uint8_t* inner;     // [CHUNK][inner], or [rows][inner] where several compute
    // of one thread:
    float* keys;        // [longest][depth]
    float* weights;     // [QUERIES][longest]
    char* prepared;     // for `multiply`
    float *pooled, *projected;

    static INLINE size_t widest(const Model& m) {
        const int wide = m.width > m.span ? m.width : m.span;
        return wide > m.inner ? wide : m.inner;
    }
    static INLINE size_t rows(const Batch& b) { return round_up(b.tokens, BLOCK); }
    static INLINE size_t inner_rows(const Batch& b, int threads) { return threads > 1 ? rows(b) : round_up(CHUNK, BLOCK); }
    static INLINE size_t bytes_needed(const Model& m, const Batch& b, int threads) {
        const size_t n = rows(b), longest = round_up(b.longest, LANES), wide = m.width > m.span ? m.width : m.span;
        const size_t shared = n * (4 * (static_cast<size_t>(m.width) + 3 * static_cast<size_t>(m.span)) + wide) +
                              (threads > 1 ? n * m.span : 0) + inner_rows(b, threads) * m.inner + (64 + GAP) * SHARED_PARTS;
        const size_t own = 4 * longest * (static_cast<size_t>(m.depth) + QUERIES) + widest(m) * PREPARED * sizeof(Prepared) +
                           8 * static_cast<size_t>(round_up(m.widest, LANES)) + (64 + GAP) * OWN_PARTS;
        return shared + threads * own;
    }
    INLINE Parts(const Model& m, const Batch& b, void* memory, int threads, int number) {
        const size_t n = rows(b), longest = round_up(b.longest, LANES), wide = m.width > m.span ? m.width : m.span;
        Arena arena{static_cast<char*>(memory)};
        x = arena.take<float>(n * m.width);
        qkv = arena.take<float>(n * 3 * m.span);
        bytes = arena.take<uint8_t>(n * wide);
        attended = threads > 1 ? arena.take<uint8_t>(n * m.span) : bytes;
        inner = arena.take<uint8_t>(inner_rows(b, threads) * m.inner);
        for (int i = 0; i <= number; ++i) {
            keys = arena.take<float>(longest * m.depth);
            weights = arena.take<float>(longest * QUERIES);
            prepared = arena.take<char>(widest(m) * PREPARED * sizeof(Prepared));
            pooled = arena.take<float>(round_up(m.widest, LANES));
            projected = arena.take<float>(round_up(m.widest, LANES));
        }
    }
};

// The embeddings' sum and LayerNorm, and the input of the first product, of the tokens from `begin` to `end`.
INLINE void embed(const Model& m, const Batch& b, const Parts& parts, int begin, int end) {
    for (int t = 0; t < b.texts; ++t)
        for (int i = begin > b.offsets[t] ? begin : b.offsets[t]; i < (end < b.offsets[t + 1] ? end : b.offsets[t + 1]); ++i) {
            const int8_t* word = m.words + static_cast<size_t>(b.ids[i]) * m.width;
            const float* type = m.type_rows + static_cast<size_t>(b.types[i]) * m.width;
            const float* position = m.position_rows + static_cast<size_t>(i - b.offsets[t]) * m.width;
            const F scale = splat(m.word_scales[b.ids[i]]);
            float* row = parts.x + static_cast<size_t>(i) * m.width;
            for (int c = 0; c < m.width; c += LANES)
                store(row + c, add(fma(to_float(load_bytes(word + c)), scale, load(type + c)), load(position + c)));
            normalize(row, m.hidden, m.width, m.norm, m.epsilon, &m.layer[0].products[QKV],
                      parts.bytes + static_cast<size_t>(i) * m.width);
        }
}

// The attention of a text, of its heads from `begin` to `end`.
INLINE void attend_text(const Model& m, const Layer& layer, const Batch& b, const Parts& parts, int text, int begin, int end) {
    const size_t first = b.offsets[text];
    for (int head = begin; head < end; ++head)
        attend_head(parts.qkv + first * 3 * m.span + head * m.depth, b.offsets[text + 1] - b.offsets[text], m.span, m.depth,
                    layer.products[ATTENTION], head * m.depth, parts.attended + first * m.span + head * m.depth, parts.keys,
                    parts.weights);
}

// Queries, keys and values of all tokens, and the attention of every text. A text's attention follows as soon as its tokens are
// there, and takes the place of the bytes that they were made of.
INLINE void attend_texts(const Model& m, const Layer& layer, const Batch& b, const Parts& parts) {
    const int span = m.span, row = 3 * span;
    int text = 0;
    for (int first = 0; first < b.tokens; first += CHUNK) {
        const int end = b.tokens - first < CHUNK ? b.tokens : first + CHUNK;
        multiply(parts.bytes + static_cast<size_t>(first) * m.width, end - first, layer.products[QKV], all_of(layer.products[QKV]),
                 parts.prepared, Store{parts.qkv + static_cast<size_t>(first) * row, row});
        if (m.span > m.width && end < b.tokens) continue;  // longer rows would overwrite what is still to be read
        for (; text < b.texts && b.offsets[text + 1] <= end; ++text) attend_text(m, layer, b, parts, text, 0, m.heads);
    }
}

// A text's pooled vector: the components of each pooling, one after the other.
INLINE void pool(const Model& m, const float* x, int tokens, float* out) {
    for (int n = 0; n < m.poolings; ++n)
        for (int c = 0; c < m.hidden; c += LANES) {
            const Pooling pooling = m.pooling[n];
            F total = pooling == MAX ? splat(-__builtin_inff()) : zero();
            for (int i = 0; i < (pooling == CLS ? 1 : tokens); ++i) {
                const F token = load(x + static_cast<size_t>(i) * m.width + c);
                if (pooling == MAX)
                    total = greater(token, total);
                else if (pooling == WEIGHTED_MEAN)
                    total = fma(splat(static_cast<float>(i + 1)), token, total);
                else
                    total = add(total, token);
            }
            const float count = static_cast<float>(tokens);
            if (pooling == MEAN) total = divide(total, splat(count));
            if (pooling == MEAN_SQRT_LEN) total = divide(total, splat(square_root(count)));
            if (pooling == WEIGHTED_MEAN) total = divide(total, splat(count * (count + 1) / 2));
            float lanes[LANES];
            store(lanes, total);
            memcpy(out + static_cast<size_t>(n) * m.hidden + c, lanes, (m.hidden - c < LANES ? m.hidden - c : LANES) * sizeof(float));
        }
}

INLINE F activate(Activation activation, F x) {
    if (activation == IDENTITY) return x;
    if (activation == TANH) return hyperbolic_tangent(x);
    if (activation == RELU) return Relu()(x);
    return Gelu(PHI[activation])(x);
}

INLINE void clear_behind(float* x, int count) {
    for (int i = count; i < round_up(count, LANES); ++i) x[i] = 0.0f;
}

// y = activation(W x + b); what lies behind x up to a multiple of 16 is 0, and so it is behind y then.
INLINE void project(const Projection& p, const float* x, float* y) {
    const int padded = round_up(p.in, LANES);
    for (int n = 0; n < p.out; ++n) {
        F total = zero();
        for (int c = 0; c < padded; c += LANES)
            total = fma(load(p.weight + static_cast<size_t>(n) * padded + c), load(x + c), total);
        y[n] = sum(total);
    }
    clear_behind(y, p.out);
    for (int c = 0; c < p.out; c += LANES) store(y + c, activate(p.activation, add(load(y + c), load(p.bias + c))));
    clear_behind(y, p.out);
}

// A text's vector of length 1 from its tokens' rows.
INLINE void vector_of(const Model& m, const float* x, int tokens, const Parts& parts, float* out) {
    float *vector = parts.pooled, *other = parts.projected;
    pool(m, x, tokens, vector);
    clear_behind(vector, m.pooled);
    for (int n = 0; n < m.projections; ++n) {
        project(m.projection[n], vector, other);
        float* swapped = vector;
        vector = other, other = swapped;
    }
    F squares = zero();
    for (int c = 0; c < m.dimension; c += LANES) squares = fma(load(vector + c), load(vector + c), squares);
    const float length = square_root(sum(squares));
    const F inverse = splat(1.0f / (length > 1e-12f ? length : 1e-12f));
    for (int c = 0; c < m.dimension; c += LANES) store(vector + c, mul(load(vector + c), inverse));
    memcpy(out, vector, m.dimension * sizeof(float));
}

// The feed-forward part's wide rows, as the bytes of its second product.
INLINE void widen(const Model& m, const Layer& layer, const uint8_t* bytes, int rows, Columns columns, const Parts& parts) {
    const Product &wide = layer.products[WIDE], &narrow = layer.products[NARROW];
    const Quantizer quantizer(narrow.zero_point);
    if (m.activation == RELU)
        multiply(bytes, rows, wide, columns, parts.prepared,
                 ActivatedBytes<Relu>{Relu(), narrow.factor, quantizer, parts.inner, m.inner});
    else
        multiply(bytes, rows, wide, columns, parts.prepared,
                 ActivatedBytes<Gelu>{Gelu(PHI[m.activation]), narrow.factor, quantizer, parts.inner, m.inner});
}

// LayerNorm of the rows from `begin` to `end`, and their bytes for the product `next`, if there is one.
INLINE void normalize_rows(const Model& m, const Parts& parts, const Norm& norm, const Product* next, int begin, int end) {
    for (int i = begin; i < end; ++i)
        normalize(parts.x + static_cast<size_t>(i) * m.width, m.hidden, m.width, norm, m.epsilon, next,
                  parts.bytes + static_cast<size_t>(i) * m.width);
}

const Product* after(const Model& m, int layer) { return layer + 1 < m.layers ? &m.layer[layer + 1].products[QKV] : nullptr; }

// The vectors of the texts from `begin` to `end`, and those of their tokens where they are asked for.
INLINE void write_vectors(const Model& m, const Batch& b, const Parts& parts, int begin, int end, float* vectors,
                          float* token_vectors) {
    for (int t = begin; t < end; ++t)
        vector_of(m, parts.x + static_cast<size_t>(b.offsets[t]) * m.width, b.offsets[t + 1] - b.offsets[t], parts,
                  vectors + static_cast<size_t>(t) * m.dimension);
    if (token_vectors)
        for (int i = b.offsets[begin]; i < b.offsets[end]; ++i)
            memcpy(token_vectors + static_cast<size_t>(i) * m.hidden, parts.x + static_cast<size_t>(i) * m.width,
                   m.hidden * sizeof(float));
}

size_t scratch_bytes(const Model& m, const Batch& b, int threads) { return Parts::bytes_needed(m, b, threads); }

void encode(const Model& m, const Batch& b, float* vectors, float* token_vectors, void* scratch) {
#if defined(GAPS)
    ASAN_UNPOISON_MEMORY_REGION(scratch, scratch_bytes(m, b, 1));  // the gaps of an earlier call
#endif
    const Parts parts(m, b, scratch, 1, 0);
    const Tiles tiles;
    embed(m, b, parts, 0, b.tokens);
    for (int l = 0; l < m.layers; ++l) {
        const Layer& layer = m.layer[l];
        const Product &attention = layer.products[ATTENTION], &narrow = layer.products[NARROW];
        attend_texts(m, layer, b, parts);
        // Where rows of bytes become longer here, a chunk's output would run into the next chunk's input.
        const int together = m.span == m.width ? CHUNK : b.tokens;
        for (int first = 0; first < b.tokens; first += together) {
            const int end = b.tokens - first < together ? b.tokens : first + together;
            multiply(parts.attended + static_cast<size_t>(first) * m.span, end - first, attention, all_of(attention), parts.prepared,
                     AddTo{parts.x + static_cast<size_t>(first) * m.width, m.width});
            for (int begin = first; begin < end; begin += CHUNK) {
                const int rows = end - begin < CHUNK ? end - begin : CHUNK;
                normalize_rows(m, parts, layer.norms[0], &layer.products[WIDE], begin, begin + rows);
                widen(m, layer, parts.bytes + static_cast<size_t>(begin) * m.width, rows, all_of(layer.products[WIDE]), parts);
                multiply(parts.inner, rows, narrow, all_of(narrow), parts.prepared,
                         AddTo{parts.x + static_cast<size_t>(begin) * m.width, m.width});
                normalize_rows(m, parts, layer.norms[1], after(m, l), begin, begin + rows);
            }
        }
    }
    write_vectors(m, b, parts, 0, b.texts, vectors, token_vectors);
}

// A thread's share of `size`, in multiples of `unit`.
INLINE Columns share(int size, int unit, const Team& team, int number) {
    const int units = (size + unit - 1) / unit;
    const int begin = static_cast<int>(static_cast<int64_t>(units) * number / team.size) * unit;
    const int end = static_cast<int>(static_cast<int64_t>(units) * (number + 1) / team.size) * unit;
    return {begin < size ? begin : size, end < size ? end : size};
}

// Each thread reads its share of the weights alone: what limits a short text. Its heads need no other thread's columns; between two
// products all of them meet.
void encode_share(const Model& m, const Batch& b, float* vectors, float* token_vectors, void* scratch, Team& team, int number) {
#if defined(GAPS)
    if (number == 0) ASAN_UNPOISON_MEMORY_REGION(scratch, scratch_bytes(m, b, team.size));  // the gaps of an earlier call
    meet(team);
#endif
    const Parts parts(m, b, scratch, team.size, number);
    const Tiles tiles;
    const Columns tokens = share(b.tokens, 1, team, number), texts = share(b.texts, 1, team, number);
    const Columns wide = share(m.inner, BLOCK, team, number), narrow = share(m.width, BLOCK, team, number);
    const Columns own = share(m.heads * m.depth, m.depth % BLOCK ? 2 * m.depth : m.depth, team, number);  // columns of whole heads
    const int row = 3 * m.span;
    embed(m, b, parts, tokens.begin, tokens.end);
    for (int l = 0; l < m.layers; ++l) {
        const Layer& layer = m.layer[l];
        meet(team);
        for (int part = 0; part < 3; ++part)
            multiply(parts.bytes, b.tokens, layer.products[QKV],
                     {part * m.span + round_up(own.begin, BLOCK), part * m.span + round_up(own.end, BLOCK)}, parts.prepared,
                     Store{parts.qkv, row});
        for (int text = 0; text < b.texts; ++text)
            attend_text(m, layer, b, parts, text, own.begin / m.depth, own.end / m.depth);
        meet(team);
        multiply(parts.attended, b.tokens, layer.products[ATTENTION], narrow, parts.prepared, AddTo{parts.x, m.width});
        meet(team);
        normalize_rows(m, parts, layer.norms[0], &layer.products[WIDE], tokens.begin, tokens.end);
        meet(team);
        widen(m, layer, parts.bytes, b.tokens, wide, parts);
        meet(team);
        multiply(parts.inner, b.tokens, layer.products[NARROW], narrow, parts.prepared, AddTo{parts.x, m.width});
        meet(team);
        normalize_rows(m, parts, layer.norms[1], after(m, l), tokens.begin, tokens.end);
    }
    meet(team);
    write_vectors(m, b, parts, texts.begin, texts.end, vectors, token_vectors);
}

void multiply_alone(const Product& p, const uint8_t* x, int rows, int32_t* sums, void* scratch) {
    const Tiles tiles;
    multiply(x, rows, p, all_of(p), scratch, Raw{sums, p.out});
}

void apply(int function, float* row, int columns, int padded) {
    if (function == APPLY_SOFTMAX) {
        for (int c = 0; c < padded; c += LANES) store(row + c, mul(load(row + c), splat(LOG2_E)));
        const F inverse = splat(softmax(row, columns, padded));
        for (int c = 0; c < padded; c += LANES) store(row + c, mul(load(row + c), inverse));
    } else if (function == APPLY_NORM) {
        // weights of 1 and biases of 0 stand behind the row, and epsilon behind them
        normalize(row, columns, padded, {row + padded, row + 2 * static_cast<size_t>(padded)}, row[3 * static_cast<size_t>(padded)],
                  nullptr, nullptr);
    } else {
        for (int c = 0; c < padded; c += LANES)
            store(row + c, activate(static_cast<Activation>(function - APPLY_ACTIVATION), load(row + c)));
    }
}

#undef EIGHT

}  // namespace
}  // namespace LEVEL

// The level's functions, by the name that levels.cpp knows them by.
#define NAMED(level) level##_kernels
#define KERNELS(level) NAMED(level)
const Kernels KERNELS(LEVEL) = {LEVEL::scratch_bytes, LEVEL::encode, LEVEL::encode_share, LEVEL::multiply_alone, LEVEL::apply, LEVEL::peak};
#undef KERNELS
#undef NAMED

}  // namespace sbmini
