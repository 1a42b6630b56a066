// The C functions that sbert_mini/runtime/native.py calls: what this processor can do, a model from its arrays, texts into vectors.
// Compiled for any processor: nothing of vector.cpp is called unless the processor has its instructions.

#include "boundary.h"
#include "encoder.h"

#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAS_VECTOR 1
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#else
#define HAS_VECTOR 0
#endif

using namespace sbmini;

namespace sbmini {

void* allocate(size_t bytes) {
    void* memory = nullptr;
    return posix_memalign(&memory, 64, (bytes + 63) / 64 * 64) == 0 ? memory : nullptr;
}

void release(void* memory) { std::free(memory); }

}  // namespace sbmini

namespace {

#if HAS_VECTOR
bool amx_allowed() {
#if defined(__linux__) && defined(SYS_arch_prctl)
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if ((d >> 24 & 3) != 3) return false;  // AMX-TILE, AMX-INT8
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}
#endif

Level detect() {
#if HAS_VECTOR
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma")))
        return NONE;
    return amx_allowed() ? AMX : VNNI;
#else
    return NONE;
#endif
}

// The ranges that the memory and the 32-bit sums of this code are made for.
constexpr int MOST_LAYERS = 1000, LARGEST = 32768, MOST_ROWS = 1 << 24, MOST_TOKENS = 1 << 24;

bool within(int value, int least, int greatest) { return value >= least && value <= greatest; }

bool sizes_fit(int layers, int hidden, int intermediate, int heads, int vocabulary, int positions, int types) {
    return within(layers, 1, MOST_LAYERS) && within(hidden, 64, LARGEST) && hidden % 64 == 0 &&
           within(intermediate, 64, LARGEST) && intermediate % 64 == 0 && within(heads, 1, hidden) && hidden % heads == 0 &&
           hidden / heads % 32 == 0 && within(vocabulary, 1, MOST_ROWS) && within(positions, 1, MOST_ROWS) &&
           within(types, 1, MOST_ROWS);
}

// What a product of this kind reads and gives.
bool product_fits(const Model& m, int kind, int in, int out) {
    switch (kind) {
        case QKV: return in == m.hidden && out == 3 * m.hidden;
        case ATTENTION: return in == m.hidden && out == m.hidden;
        case WIDE: return in == m.hidden && out == m.intermediate;
        case NARROW: return in == m.intermediate && out == m.hidden;
        default: return false;
    }
}

bool complete(const Model& m) {
    for (int l = 0; l < m.layers; ++l) {
        for (const Product& p : m.layer[l].products)
            if (!p.packed || !p.multiplier || !p.addend || !p.factor) return false;
        for (const Norm& n : m.layer[l].norms)
            if (!n.weight || !n.bias) return false;
    }
    return true;
}

float* copy(Floats from) {
    const size_t bytes = static_cast<size_t>(from.count) * sizeof(float);
    float* to = static_cast<float*>(allocate(bytes));
    if (to) std::memcpy(to, from.data, bytes);
    return to;
}

// Fills a product, whose sizes and arrays are checked.
Status pack(const Model& m, Product& p, int kind, int in, int out, Bytes weight, Floats column_scale, Floats bias, float scale,
            int zero_point, Floats factor) {
    p.in = in, p.out = out, p.zero_point = zero_point;
    p.packed = static_cast<int8_t*>(allocate(static_cast<size_t>(in) * out));
    p.multiplier = static_cast<float*>(allocate(out * sizeof(float)));
    p.addend = static_cast<float*>(allocate(out * sizeof(float)));
    p.factor = copy(factor);
    int32_t* sums = static_cast<int32_t*>(allocate(out * sizeof(int32_t)));
    if (!p.packed || !p.multiplier || !p.addend || !p.factor || !sums) return release(sums), NO_MEMORY;
    std::memset(sums, 0, out * sizeof(int32_t));
    for (int k = 0; k < in; k += 4) {
        const int8_t* rows = weight.data + static_cast<size_t>(k) * out;
        for (int n = 0; n < out; n += 16) {  // 4 x 16 weights -> 64 bytes in a row
            int8_t* to = p.packed + static_cast<size_t>(n) * in + static_cast<size_t>(k) * 16;
            for (int c = 0; c < 16; ++c) {
                const int8_t *from = rows + n + c, *second = from + out, *third = second + out, *fourth = third + out;
                to[4 * c] = *from, to[4 * c + 1] = *second, to[4 * c + 2] = *third, to[4 * c + 3] = *fourth;
                sums[n + c] += *from + *second + *third + *fourth;
            }
        }
    }
    // the queries' share of 1 / sqrt(depth) is in their scale and bias
    const int depth = m.hidden / m.heads, queries = kind == QKV ? m.hidden : 0;
    for (int n = 0; n < out; ++n) {
        const float root = n < queries ? 1.0f / __builtin_sqrtf(static_cast<float>(depth)) : 1.0f;
        p.multiplier[n] = scale * column_scale.data[n] * root;
        p.addend[n] = bias.data[n] * root - static_cast<float>(zero_point * sums[n]) * p.multiplier[n];
    }
    release(sums);
    return DONE;
}

// A thread's working memory, kept from call to call.
struct Scratch {
    void* memory = nullptr;
    size_t bytes = 0;
    ~Scratch() { release(memory); }
    void* at_least(size_t wanted) {
        if (wanted > bytes) {
            release(memory);
            memory = allocate(wanted);
            bytes = memory ? wanted : 0;
        }
        return memory;
    }
};
thread_local Scratch scratch;

}  // namespace

// 0: this processor is not served; 1: AVX-512 VNNI; 2: AMX too.
EXPORT int sbmini_level() noexcept {
    static const Level level = detect();
    return level;
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
        case GIVEN_TWICE: return "a product or norm is given twice";
        case INCOMPLETE: return "the model lacks a product or norm";
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
        for (Product& p : m->layer[l].products)
            release(p.packed), release(p.multiplier), release(p.addend), release(p.factor);
        for (Norm& n : m->layer[l].norms) release(n.weight), release(n.bias);
    }
    release(m->word_scales), release(m->type_rows), release(m->position_rows);
    release(m->norm.weight), release(m->norm.bias);
    delete[] m->layer;
    delete m;
}

// Puts a new model into `made`, null where it fails. words: (vocabulary, hidden), which must live as long as the model;
// all else is copied: word_scales: (vocabulary,); type_rows: (types, hidden); position_rows: (positions, hidden);
// norm_weight, norm_bias: (hidden,). Returns a `Status`.
EXPORT int sbmini_open(int layers, int hidden, int intermediate, int heads, int vocabulary, int positions, int types,
                       float epsilon, Bytes words, Floats word_scales, Floats type_rows, Floats position_rows,
                       Floats norm_weight, Floats norm_bias, Model** made) noexcept {
    if (!made) return BAD_ARRAY;
    *made = nullptr;
    if (!sizes_fit(layers, hidden, intermediate, heads, vocabulary, positions, types)) return BAD_SIZE;
    if (!(epsilon >= 0.0f && epsilon <= 1.0f)) return BAD_SIZE;
    const int64_t width = hidden;
    if (!holds(words, vocabulary * width) || !holds(word_scales, vocabulary) || !holds(type_rows, types * width) ||
        !holds(position_rows, positions * width) || !holds(norm_weight, width) || !holds(norm_bias, width))
        return BAD_ARRAY;
    return guarded([&] {
        Model* m = new Model{};
        m->layers = layers, m->hidden = hidden, m->intermediate = intermediate, m->heads = heads;
        m->vocabulary = vocabulary, m->positions = positions, m->types = types, m->epsilon = epsilon, m->words = words.data;
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

// The product `kind` of a layer, given once. weight: (in, out); column_scale, bias: (out,); factor: (in,). Returns a `Status`.
EXPORT int sbmini_set_product(Model* m, int layer, int kind, int in, int out, Bytes weight, Floats column_scale, Floats bias,
                              float scale, int zero_point, Floats factor) noexcept {
    if (!m) return BAD_ARRAY;
    if (!within(layer, 0, m->layers - 1)) return BAD_LAYER;
    if (!product_fits(*m, kind, in, out)) return BAD_KIND;
    if (!within(zero_point, 0, 255)) return BAD_SIZE;
    if (!holds(weight, static_cast<int64_t>(in) * out) || !holds(column_scale, out) || !holds(bias, out) || !holds(factor, in))
        return BAD_ARRAY;
    Product& p = m->layer[layer].products[kind];
    if (p.packed || p.multiplier || p.addend || p.factor) return GIVEN_TWICE;
    return guarded([&] { return pack(*m, p, kind, in, out, weight, column_scale, bias, scale, zero_point, factor); });
}

// The LayerNorm after attention (0) or after the feed-forward part (1), given once; weight, bias: (hidden,). Returns a `Status`.
EXPORT int sbmini_set_norm(Model* m, int layer, int which, Floats weight, Floats bias) noexcept {
    if (!m) return BAD_ARRAY;
    if (!within(layer, 0, m->layers - 1)) return BAD_LAYER;
    if (!within(which, 0, 1)) return BAD_KIND;
    if (!holds(weight, m->hidden) || !holds(bias, m->hidden)) return BAD_ARRAY;
    Norm& n = m->layer[layer].norms[which];
    if (n.weight || n.bias) return GIVEN_TWICE;
    return guarded([&] {
        n = {copy(weight), copy(bias)};
        return n.weight && n.bias ? DONE : NO_MEMORY;
    });
}

// ids, type_ids: (tokens,); offsets: (texts + 1,), where each text begins, and the number of tokens; vectors: (texts, hidden).
// `level` at most `sbmini_level()`. Returns a `Status`.
EXPORT int sbmini_encode(const Model* m, int level, Numbers ids, Numbers type_ids, Numbers offsets, Vectors vectors) noexcept {
    if (!m || offsets.count < 1 || offsets.count > MOST_TOKENS || !holds(offsets, offsets.count)) return BAD_ARRAY;
    const int texts = static_cast<int>(offsets.count) - 1, tokens = offsets.data[texts];
    if (offsets.data[0] != 0 || !within(tokens, 0, MOST_TOKENS)) return BAD_LENGTH;
    if (!holds(ids, tokens) || !holds(type_ids, tokens) || !holds(vectors, static_cast<int64_t>(texts) * m->hidden))
        return BAD_ARRAY;
    if (!complete(*m)) return INCOMPLETE;
    int longest = 0;
    for (int t = 0; t < texts; ++t) {
        const int64_t length = static_cast<int64_t>(offsets.data[t + 1]) - offsets.data[t];
        if (length < 1 || length > m->positions) return BAD_LENGTH;
        if (length > longest) longest = static_cast<int>(length);
    }
    for (int i = 0; i < tokens; ++i)
        if (!within(ids.data[i], 0, m->vocabulary - 1) || !within(type_ids.data[i], 0, m->types - 1)) return BAD_TOKEN;
#if HAS_VECTOR
    if (level < VNNI || level > sbmini_level()) return BAD_LEVEL;
    return guarded([&] {
        void* memory = scratch.at_least(scratch_bytes(*m, tokens, longest));
        if (!memory) return NO_MEMORY;
        run(*m, static_cast<Level>(level), ids.data, type_ids.data, offsets.data, texts, vectors.data, memory);
        return DONE;
    });
#else
    return BAD_LEVEL;
#endif
}
