// The C functions that sbert_mini/runtime/native.py calls: what this processor can do, a model from its arrays, texts into vectors.
// Compiled for any processor: no level's code is called unless the processor has its instructions (levels.cpp).

#include "boundary.h"
#include "encoder.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <system_error>
#include <thread>

#if defined(_WIN32)
#include <malloc.h>
#endif

using namespace sbmini;

namespace sbmini {

#if defined(_WIN32)
void* allocate(size_t bytes) { return _aligned_malloc((bytes + 63) / 64 * 64, 64); }

void release(void* memory) { _aligned_free(memory); }
#else
void* allocate(size_t bytes) {
    void* memory = nullptr;
    return posix_memalign(&memory, 64, (bytes + 63) / 64 * 64) == 0 ? memory : nullptr;
}

void release(void* memory) { std::free(memory); }
#endif

void meet(Team& team) {
    constexpr int PATIENCE = 4000;  // looks before another thread is let in: some microseconds
    const int meetings = __atomic_load_n(&team.meetings, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&team.arrived, 1, __ATOMIC_ACQ_REL) == team.size) {
        __atomic_store_n(&team.arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&team.meetings, meetings + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int looks = 0; __atomic_load_n(&team.meetings, __ATOMIC_ACQUIRE) == meetings; ++looks)
        if (looks >= PATIENCE) std::this_thread::yield();
}

}  // namespace sbmini

namespace {

// The levels that are compiled and that the processor has, a bit each.
int detect() {
    int found = 0;
    for (int level = PORTABLE; level < LEVELS; ++level)
        if (kernels_of[level] && processor_has(static_cast<Level>(level))) found |= 1 << level;
    return found;
}

int levels() {
    static const int found = detect();
    return found;
}

const Kernels* kernels(int level) {
    return level > NONE && level < LEVELS && (levels() >> level & 1) ? kernels_of[level] : nullptr;
}

// Rounding to nearest and subnormal numbers, whatever the process has set: libraries that are compiled with -ffast-math switch
// subnormal numbers off in the threads that load them.
class FloatMode {
#if defined(__x86_64__)
    unsigned saved = __builtin_ia32_stmxcsr();

public:
    FloatMode() { __builtin_ia32_ldmxcsr(0x1f80); }
    ~FloatMode() { __builtin_ia32_ldmxcsr(saved); }
#elif defined(__aarch64__)
    uint64_t saved;

public:
    FloatMode() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
        set(0);
    }
    ~FloatMode() { set(saved); }
    void set(uint64_t mode) { __asm__ volatile("msr fpcr, %0" ::"r"(mode)); }
#else
public:
    FloatMode() {}
#endif
    FloatMode(const FloatMode&) = delete;
};

// The ranges that the memory and the 32-bit sums of this code are made for.
constexpr int MOST_LAYERS = 1000, LARGEST = 32768, MOST_ROWS = 1 << 24, MOST_TOKENS = 1 << 24;

bool within(int value, int least, int greatest) { return value >= least && value <= greatest; }

int padded(int size, int to) { return (size + to - 1) / to * to; }

// The sizes of a model; false where one is outside its range.
bool set_sizes(Model& m, int layers, int hidden, int intermediate, int heads, int vocabulary, int positions, int types,
               int activation) {
    if (!within(layers, 1, MOST_LAYERS) || !within(hidden, 1, LARGEST) || !within(intermediate, 1, LARGEST) ||
        !within(heads, 1, hidden) || hidden % heads != 0 || !within(vocabulary, 1, MOST_ROWS) ||
        !within(positions, 1, MOST_ROWS) || !within(types, 1, MOST_ROWS) || !within(activation, GELU, RELU))
        return false;
    m.layers = layers, m.hidden = hidden, m.heads = heads, m.vocabulary = vocabulary, m.positions = positions, m.types = types;
    m.width = padded(hidden, BLOCK), m.inner = padded(intermediate, BLOCK), m.depth = padded(hidden / heads, 32);
    m.activation = static_cast<Activation>(activation);
    if (static_cast<int64_t>(heads) * m.depth > LARGEST) return false;
    m.span = padded(heads * m.depth, BLOCK);
    return true;
}

// What a product of this kind reads and gives.
bool product_fits(const Model& m, int kind, int in, int out) {
    switch (kind) {
        case QKV: return in == m.width && out == 3 * m.span;
        case ATTENTION: return in == m.span && out == m.width;
        case WIDE: return in == m.width && out == m.inner;
        case NARROW: return in == m.inner && out == m.width;
        default: return false;
    }
}

bool complete(const Model& m) {
    for (int l = 0; l < m.layers; ++l) {
        for (const Product& p : m.layer[l].products)
            if (!p.packed || !p.multiplier || !p.addend || !p.factor || !p.offset) return false;
        for (const Norm& n : m.layer[l].norms)
            if (!n.weight || !n.bias) return false;
    }
    return m.poolings > 0;
}

float* copy(Floats from) {
    const size_t bytes = static_cast<size_t>(from.count) * sizeof(float);
    float* to = static_cast<float*>(allocate(bytes));
    if (to) std::memcpy(to, from.data, bytes);
    return to;
}

void release_product(Product& p) {
    release(p.packed), release(p.multiplier), release(p.addend), release(p.factor), release(p.offset);
}

// Fills a product's weights, and 128 times the sum of each column. in, out: multiples of BLOCK.
Status pack(Product& p, int in, int out, const int8_t* weight) {
    p.in = in, p.out = out;
    p.packed = static_cast<int8_t*>(allocate(static_cast<size_t>(in) * out));
    p.offset = static_cast<int32_t*>(allocate(out * sizeof(int32_t)));
    if (!p.packed || !p.offset) return NO_MEMORY;
    std::memset(p.offset, 0, out * sizeof(int32_t));
    for (int k = 0; k < in; k += 4) {
        const int8_t* rows = weight + static_cast<size_t>(k) * out;
        for (int n = 0; n < out; n += 16) {  // 4 x 16 weights -> 64 bytes in a row
            int8_t* to = p.packed + static_cast<size_t>(n) * in + static_cast<size_t>(k) * 16;
            for (int c = 0; c < 16; ++c) {
                const int8_t *from = rows + n + c, *second = from + out, *third = second + out, *fourth = third + out;
                to[4 * c] = *from, to[4 * c + 1] = *second, to[4 * c + 2] = *third, to[4 * c + 3] = *fourth;
                p.offset[n + c] += 128 * (*from + *second + *third + *fourth);
            }
        }
    }
    return DONE;
}

// Fills a product, whose sizes and arrays are checked. Not inlined: the caller sets the float mode.
__attribute__((noinline)) Status fill(const Model& m, Product& p, int kind, int in, int out, Bytes weight, Floats column_scale, Floats bias, float scale,
            int zero_point, Floats factor) {
    const Status status = pack(p, in, out, weight.data);
    if (status != DONE) return status;
    p.zero_point = zero_point;
    p.multiplier = static_cast<float*>(allocate(out * sizeof(float)));
    p.addend = static_cast<float*>(allocate(out * sizeof(float)));
    p.factor = copy(factor);
    if (!p.multiplier || !p.addend || !p.factor) return NO_MEMORY;
    // the queries' share of 1 / sqrt(depth) is in their scale and bias
    const int depth = m.hidden / m.heads, queries = kind == QKV ? m.span : 0;
    const float of_queries = static_cast<float>(1.4426950408889634 / __builtin_sqrt(depth));  // log2(e): softmax is to the base 2
    for (int n = 0; n < out; ++n) {
        const float root = n < queries ? of_queries : 1.0f;
        p.multiplier[n] = scale * column_scale.data[n] * root;
        p.addend[n] = bias.data[n] * root - static_cast<float>(zero_point * (p.offset[n] / 128)) * p.multiplier[n];
    }
    return DONE;
}

// A thread's working memory, kept from call to call.
struct Scratch {
    void* memory = nullptr;
    size_t bytes = 0;
    ~Scratch() { release(memory); }
    void* at_least(size_t needed) {
        if (needed > bytes) {
            release(memory);
            memory = allocate(needed);
            bytes = memory ? needed : 0;
        }
        return memory;
    }
};
thread_local Scratch scratch;

// Memory that lives as long as a call.
struct Temporary {
    void* memory;
    explicit Temporary(size_t bytes) : memory(allocate(bytes)) {
        if (memory) std::memset(memory, 0, bytes);
    }
    ~Temporary() { release(memory); }
    Temporary(const Temporary&) = delete;
};

// The arrays of a batch; a `Status`.
Status check(const Model& m, Numbers ids, Numbers type_ids, Numbers offsets, Vectors vectors, Vectors token_vectors, Batch& batch) {
    if (offsets.count < 1 || offsets.count > MOST_TOKENS || !holds(offsets, offsets.count)) return BAD_ARRAY;
    const int texts = static_cast<int>(offsets.count) - 1, tokens = offsets.data[texts];
    if (offsets.data[0] != 0 || !within(tokens, 0, MOST_TOKENS)) return BAD_LENGTH;
    if (!complete(m)) return INCOMPLETE;
    if (!holds(ids, tokens) || !holds(type_ids, tokens) || !holds(vectors, static_cast<int64_t>(texts) * m.dimension))
        return BAD_ARRAY;
    if (token_vectors.data && !holds(token_vectors, static_cast<int64_t>(tokens) * m.hidden)) return BAD_ARRAY;
    batch = {ids.data, type_ids.data, offsets.data, texts, tokens, 0};
    for (int t = 0; t < texts; ++t) {
        const int64_t length = static_cast<int64_t>(offsets.data[t + 1]) - offsets.data[t];
        if (length < 1 || length > m.positions) return BAD_LENGTH;
        if (length > batch.longest) batch.longest = static_cast<int>(length);
    }
    for (int i = 0; i < tokens; ++i)
        if (!within(ids.data[i], 0, m.vocabulary - 1) || !within(type_ids.data[i], 0, m.types - 1)) return BAD_TOKEN;
    return DONE;
}

constexpr int64_t WORTH_A_THREAD = 30000000;  // multiply-adds; a thread takes about 30 microseconds to start

int64_t multiply_adds(const Model& m, const Batch& b) {
    const int64_t weights = static_cast<int64_t>(m.width) * (4 * static_cast<int64_t>(m.span) + 2 * static_cast<int64_t>(m.inner));
    return weights * m.layers * b.tokens;
}

// A batch by this thread and as many others as can be had, `threads` in all. They end with the call: nothing of them is left for a
// process that forks.
void encode_together(const Kernels& kernels, const Model& m, const Batch& b, float* vectors, float* token_vectors, void* memory,
                     int threads) {
    Team team;
    std::thread others[MOST_THREADS];
    const auto compute = [&](int number) {
        while (__atomic_load_n(&team.size, __ATOMIC_ACQUIRE) == 0) std::this_thread::yield();  // how many there are is known last
        const FloatMode mode;
        kernels.encode_share(m, b, vectors, token_vectors, memory, team, number);
    };
    int size = 1;
    try {
        for (; size < threads; ++size) others[size] = std::thread(compute, size);
    } catch (const std::system_error&) {  // no more can be had
    }
    __atomic_store_n(&team.size, size, __ATOMIC_RELEASE);
    compute(0);
    for (int i = 1; i < size; ++i) others[i].join();
}

}  // namespace

// The levels that can be had here: bit n for level n.
EXPORT int sbmini_levels() noexcept { return levels(); }

// The name of a level; null where there is none of this number.
EXPORT const char* sbmini_level_name(int level) noexcept {
    static const char* const names[LEVELS] = {"none",        "portable", "avx2",        "avx_vnni",
                                              "avx512_vnni", "amx_int8", "neon_dotprod"};
    return within(level, 0, LEVELS - 1) ? names[level] : nullptr;
}

// The text of a status.
EXPORT const char* sbmini_error(int status) noexcept {
    switch (status) {
        case DONE: return "done";
        case NO_MEMORY: return "there is no memory";
        case BAD_SIZE: return "a size is outside the range that native code computes";
        case BAD_LAYER: return "the model has no such layer";
        case BAD_KIND: return "there is no such product or norm, or it has another size";
        case BAD_ARRAY: return "an array is absent, not aligned, or has another length than the sizes ask for";
        case GIVEN_TWICE: return "a part of the model is given twice";
        case INCOMPLETE: return "the model lacks a product, a norm or its pooling";
        case BAD_TOKEN: return "an id or a segment is not in the model's vocabulary";
        case BAD_LENGTH: return "a text is empty, or has more tokens than the model has positions";
        case BAD_LEVEL: return "this processor does not have the instructions that are asked for";
        case FAILED: return "an unexpected failure";
        case BAD_TEXT: return "a text is not UTF-8";
        case NO_ROOM: return "an array has no room for what is to be written";
        default: return "an unknown status";
    }
}

EXPORT void sbmini_close(Model* m) noexcept {
    if (!m) return;
    for (int l = 0; m->layer && l < m->layers; ++l) {
        for (Product& p : m->layer[l].products) release_product(p);
        for (Norm& n : m->layer[l].norms) release(n.weight), release(n.bias);
    }
    for (Projection& p : m->projection) release(p.weight), release(p.bias);
    release(m->word_scales), release(m->type_rows), release(m->position_rows);
    release(m->norm.weight), release(m->norm.bias);
    delete[] m->layer;
    delete m;
}

// Puts a new model into `made`, null where it fails. Rows are padded with zeros to `width`, `hidden` rounded up to a multiple of 64.
// words: (vocabulary, width), which must live as long as the model; all else is copied: word_scales: (vocabulary,);
// type_rows: (types, width); position_rows: (positions, width); norm_weight, norm_bias: (width,). Returns a `Status`.
EXPORT int sbmini_open(int layers, int hidden, int intermediate, int heads, int vocabulary, int positions, int types,
                       int activation, float epsilon, Bytes words, Floats word_scales, Floats type_rows, Floats position_rows,
                       Floats norm_weight, Floats norm_bias, Model** made) noexcept {
    if (!made) return BAD_ARRAY;
    *made = nullptr;
    Model sizes{};
    if (!set_sizes(sizes, layers, hidden, intermediate, heads, vocabulary, positions, types, activation)) return BAD_SIZE;
    if (!(epsilon >= 0.0f && epsilon <= 1.0f)) return BAD_SIZE;
    const int64_t width = sizes.width;
    if (!holds(words, vocabulary * width) || !holds(word_scales, vocabulary) || !holds(type_rows, types * width) ||
        !holds(position_rows, positions * width) || !holds(norm_weight, width) || !holds(norm_bias, width))
        return BAD_ARRAY;
    return guarded([&]() -> int {
        Model* m = new Model(sizes);
        m->epsilon = epsilon, m->words = words.data;
        m->word_scales = copy(word_scales);
        m->type_rows = copy(type_rows);
        m->position_rows = copy(position_rows);
        m->norm = {copy(norm_weight), copy(norm_bias)};
        m->layer = new (std::nothrow) Layer[layers];
        if (!m->word_scales || !m->type_rows || !m->position_rows || !m->norm.weight || !m->norm.bias || !m->layer)
            return sbmini_close(m), NO_MEMORY;
        *made = m;
        return DONE;
    });
}

// The product `kind` of a layer, given once. weight: (in, out); column_scale, bias: (out,); factor: (in,); in and out are padded.
// Of QKV, out is three times `span`, the depths of all heads, each padded to a multiple of 32, and all to one of 64; of ATTENTION
// in is `span`. Returns a `Status`.
EXPORT int sbmini_set_product(Model* m, int layer, int kind, int in, int out, Bytes weight, Floats column_scale, Floats bias,
                              float scale, int zero_point, Floats factor) noexcept {
    if (!m) return BAD_ARRAY;
    if (!within(layer, 0, m->layers - 1)) return BAD_LAYER;
    if (!product_fits(*m, kind, in, out)) return BAD_KIND;
    if (!within(zero_point, 0, 255)) return BAD_SIZE;
    if (!holds(weight, static_cast<int64_t>(in) * out) || !holds(column_scale, out) || !holds(bias, out) || !holds(factor, in))
        return BAD_ARRAY;
    Product& p = m->layer[layer].products[kind];
    if (p.packed || p.multiplier || p.addend || p.factor || p.offset) return GIVEN_TWICE;
    return guarded([&]() -> int {
        const FloatMode mode;
        return fill(*m, p, kind, in, out, weight, column_scale, bias, scale, zero_point, factor);
    });
}

// The LayerNorm after attention (0) or after the feed-forward part (1), given once; weight, bias: (width,). Returns a `Status`.
EXPORT int sbmini_set_norm(Model* m, int layer, int which, Floats weight, Floats bias) noexcept {
    if (!m) return BAD_ARRAY;
    if (!within(layer, 0, m->layers - 1)) return BAD_LAYER;
    if (!within(which, 0, 1)) return BAD_KIND;
    if (!holds(weight, m->width) || !holds(bias, m->width)) return BAD_ARRAY;
    Norm& n = m->layer[layer].norms[which];
    if (n.weight || n.bias) return GIVEN_TWICE;
    return guarded([&]() -> int {
        n = {copy(weight), copy(bias)};
        return n.weight && n.bias ? DONE : NO_MEMORY;
    });
}

// How tokens become a text's vector, given once: the numbers of `Pooling`, whose components stand one after the other.
// Returns a `Status`.
EXPORT int sbmini_set_poolings(Model* m, Numbers poolings) noexcept {
    if (!m || poolings.count < 1 || poolings.count > MOST_POOLINGS || !holds(poolings, poolings.count)) return BAD_ARRAY;
    if (m->poolings) return GIVEN_TWICE;
    for (int64_t i = 0; i < poolings.count; ++i) {
        if (!within(poolings.data[i], CLS, WEIGHTED_MEAN)) return BAD_KIND;
        m->pooling[i] = static_cast<Pooling>(poolings.data[i]);
    }
    m->poolings = static_cast<int>(poolings.count);
    m->pooled = m->dimension = m->widest = m->poolings * m->hidden;
    return DONE;
}

// The next float product after the poolings. weight: (out, in padded to a multiple of 16); bias: (out padded likewise,).
// Returns a `Status`.
EXPORT int sbmini_add_projection(Model* m, int in, int out, Floats weight, Floats bias, int activation) noexcept {
    if (!m) return BAD_ARRAY;
    if (!m->poolings || m->projections == MOST_PROJECTIONS || in != m->dimension) return BAD_KIND;
    if (!within(out, 1, LARGEST) || !within(activation, GELU, IDENTITY)) return BAD_SIZE;
    if (!holds(weight, static_cast<int64_t>(out) * padded(in, 16)) || !holds(bias, padded(out, 16))) return BAD_ARRAY;
    return guarded([&]() -> int {
        Projection& p = m->projection[m->projections];
        p = {in, out, copy(weight), copy(bias), static_cast<Activation>(activation)};
        if (!p.weight || !p.bias) {
            release(p.weight), release(p.bias);
            p = {};
            return NO_MEMORY;
        }
        ++m->projections;
        m->dimension = out;
        if (out > m->widest) m->widest = out;
        return DONE;
    });
}

// ids, type_ids: (tokens,); offsets: (texts + 1,), where each text begins, and the number of tokens; vectors: (texts, dimension),
// each of length 1; token_vectors: (tokens, hidden), or null. `level` is one of `sbmini_levels()`. Up to `threads` threads compute
// the batch together, where it is large enough for that. Returns a `Status`.
EXPORT int sbmini_encode(const Model* m, int level, int threads, Numbers ids, Numbers type_ids, Numbers offsets, Vectors vectors,
                         Vectors token_vectors) noexcept {
    if (!m) return BAD_ARRAY;
    if (!within(threads, 1, MOST_THREADS)) return BAD_SIZE;
    Batch batch;
    const Status status = check(*m, ids, type_ids, offsets, vectors, token_vectors, batch);
    if (status != DONE) return status;
    const Kernels* const chosen = kernels(level);
    if (!chosen) return BAD_LEVEL;
    if (multiply_adds(*m, batch) < WORTH_A_THREAD) threads = 1;
    return guarded([&]() -> int {
        void* memory = scratch.at_least(chosen->scratch_bytes(*m, batch, threads));
        if (!memory) return NO_MEMORY;
        if (threads > 1) return encode_together(*chosen, *m, batch, vectors.data, token_vectors.data, memory, threads), DONE;
        const FloatMode mode;
        chosen->encode(*m, batch, vectors.data, token_vectors.data, memory);
        return DONE;
    });
}

// A product's sums alone, for tests. x: (rows, in); weight: (in, out); sums: (rows, out). Any sizes: they are padded here.
// Returns a `Status`.
EXPORT int sbmini_multiply(int level, int rows, int in, int out, Unsigned x, Bytes weight, Sums sums) noexcept {
    if (!within(rows, 1, LARGEST) || !within(in, 1, LARGEST) || !within(out, 1, LARGEST)) return BAD_SIZE;
    if (!holds(x, static_cast<int64_t>(rows) * in) || !holds(weight, static_cast<int64_t>(in) * out) ||
        !holds(sums, static_cast<int64_t>(rows) * out))
        return BAD_ARRAY;
    const Kernels* const chosen = kernels(level);
    if (!chosen) return BAD_LEVEL;
    return guarded([&]() -> int {
        const int inner = padded(in, BLOCK), wide = padded(out, BLOCK);
        Temporary weights(static_cast<size_t>(inner) * wide), input(static_cast<size_t>(padded(rows, BLOCK)) * inner);
        Temporary output(static_cast<size_t>(rows) * wide * sizeof(int32_t)), space(static_cast<size_t>(inner) * PREPARED_BYTES);
        if (!weights.memory || !input.memory || !output.memory || !space.memory) return NO_MEMORY;
        for (int k = 0; k < in; ++k)
            std::memcpy(static_cast<int8_t*>(weights.memory) + static_cast<size_t>(k) * wide,
                        weight.data + static_cast<size_t>(k) * out, out);
        for (int r = 0; r < rows; ++r)
            std::memcpy(static_cast<uint8_t*>(input.memory) + static_cast<size_t>(r) * inner,
                        x.data + static_cast<size_t>(r) * in, in);
        Product p;
        const Status status = pack(p, inner, wide, static_cast<const int8_t*>(weights.memory));
        if (status == DONE)
            chosen->multiply(p, static_cast<const uint8_t*>(input.memory), rows, static_cast<int32_t*>(output.memory), space.memory);
        release_product(p);
        for (int r = 0; r < rows; ++r)
            std::memcpy(sums.data + static_cast<size_t>(r) * out,
                        static_cast<const int32_t*>(output.memory) + static_cast<size_t>(r) * wide, out * sizeof(int32_t));
        return static_cast<int>(status);
    });
}

// A `Function` of each row, for tests: an activation, softmax, or LayerNorm with weights of 1 and biases of 0. x, y: (rows, columns).
// Returns a `Status`.
EXPORT int sbmini_apply(int level, int function, int rows, int columns, float epsilon, Floats x, Vectors y) noexcept {
    if (!within(rows, 1, MOST_ROWS) || !within(columns, 1, LARGEST)) return BAD_SIZE;
    if (!within(function, APPLY_ACTIVATION, IDENTITY) && function != APPLY_SOFTMAX && function != APPLY_NORM) return BAD_KIND;
    if (!holds(x, static_cast<int64_t>(rows) * columns) || !holds(y, static_cast<int64_t>(rows) * columns)) return BAD_ARRAY;
    const Kernels* const chosen = kernels(level);
    if (!chosen) return BAD_LEVEL;
    return guarded([&]() -> int {
        const int wide = padded(columns, function == APPLY_NORM ? BLOCK : 16);
        Temporary space((3 * static_cast<size_t>(wide) + 1) * sizeof(float));
        if (!space.memory) return NO_MEMORY;
        float* row = static_cast<float*>(space.memory);
        const FloatMode mode;
        for (int c = 0; c < columns; ++c) row[wide + c] = 1.0f;
        row[3 * static_cast<size_t>(wide)] = epsilon;
        for (int r = 0; r < rows; ++r) {
            std::memset(row, 0, wide * sizeof(float));
            std::memcpy(row, x.data + static_cast<size_t>(r) * columns, columns * sizeof(float));
            chosen->apply(function, row, columns, wide);
            std::memcpy(y.data + static_cast<size_t>(r) * columns, row, columns * sizeof(float));
        }
        return static_cast<int>(DONE);
    });
}

// Repeats a level's own instruction for multiply-adds of bytes on registers, and returns how many multiply-adds it did: what a
// level is measured against. 0 where the level cannot be had.
EXPORT int64_t sbmini_peak(int level, int64_t rounds) noexcept {
    const Kernels* const chosen = kernels(level);
    return chosen && rounds > 0 ? chosen->peak(rounds) : 0;
}
