// The C functions that sbert_mini/runtime/native.py calls: what this processor can do, a model from its arrays, texts into vectors.
// Compiled for any processor: nothing of vector.cpp is called unless the processor has its instructions.

#include "encoder.h"

#include <cstdlib>
#include <cstring>
#include <new>

#define EXPORT extern "C" __attribute__((visibility("default")))

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

// The ranges that the memory and the 32-bit sums of this code are made for. The caller's sizes are checked against them here too.
constexpr int MOST_LAYERS = 1000, LARGEST = 32768, MOST_ROWS = 1 << 24;

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

// What `body` returns; `failed` in the place of an exception, which must not reach the caller's C.
template <class T, class F>
T guarded(T failed, F body) {
    try {
        return body();
    } catch (...) {
        return failed;
    }
}

template <class T>
T* copy(const T* from, size_t count) {
    T* to = static_cast<T*>(allocate(count * sizeof(T)));
    if (to) std::memcpy(to, from, count * sizeof(T));
    return to;
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
EXPORT int sbmini_level() {
    static const Level level = detect();
    return level;
}

EXPORT void sbmini_close(Model* m) {
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

// words must live as long as the model; all else is copied. Null where memory is short or a size is out of range.
EXPORT Model* sbmini_open(int layers, int hidden, int intermediate, int heads, int vocabulary, int positions, int types,
                          float epsilon, const int8_t* words, const float* word_scales, const float* type_rows,
                          const float* position_rows, const float* norm_weight, const float* norm_bias) {
    if (!sizes_fit(layers, hidden, intermediate, heads, vocabulary, positions, types)) return nullptr;
    if (!words || !word_scales || !type_rows || !position_rows || !norm_weight || !norm_bias) return nullptr;
    Model* m = new (std::nothrow) Model{};
    if (!m) return nullptr;
    m->layers = layers, m->hidden = hidden, m->intermediate = intermediate, m->heads = heads;
    m->vocabulary = vocabulary, m->positions = positions, m->types = types, m->epsilon = epsilon, m->words = words;
    m->word_scales = copy(word_scales, vocabulary);
    m->type_rows = copy(type_rows, static_cast<size_t>(types) * hidden);
    m->position_rows = copy(position_rows, static_cast<size_t>(positions) * hidden);
    m->norm = {copy(norm_weight, hidden), copy(norm_bias, hidden)};
    m->layer = guarded<Layer*>(nullptr, [&] { return new Layer[layers]; });
    if (m->word_scales && m->type_rows && m->position_rows && m->norm.weight && m->norm.bias && m->layer) return m;
    sbmini_close(m);
    return nullptr;
}

// The product `kind` of a layer, given once. weight: (in, out); column_scale, bias: (out,); factor: (in,).
// Returns 0, or 1 where memory is short, 2 where the layer, the kind or a size is not the model's.
EXPORT int sbmini_set_product(Model* m, int layer, int kind, int in, int out, const int8_t* weight, const float* column_scale,
                              const float* bias, float scale, int zero_point, const float* factor) {
    if (!m || !within(layer, 0, m->layers - 1) || !product_fits(*m, kind, in, out) || !within(zero_point, 0, 255)) return 2;
    if (!weight || !column_scale || !bias || !factor) return 2;
    Product& p = m->layer[layer].products[kind];
    if (p.packed || p.multiplier || p.addend || p.factor) return 2;
    p.in = in, p.out = out, p.zero_point = zero_point;
    p.packed = static_cast<int8_t*>(allocate(static_cast<size_t>(in) * out));
    p.multiplier = static_cast<float*>(allocate(out * sizeof(float)));
    p.addend = static_cast<float*>(allocate(out * sizeof(float)));
    p.factor = copy(factor, in);
    int32_t* sums = static_cast<int32_t*>(allocate(out * sizeof(int32_t)));
    if (!p.packed || !p.multiplier || !p.addend || !p.factor || !sums) return release(sums), 1;
    std::memset(sums, 0, out * sizeof(int32_t));
    for (int k = 0; k < in; ++k) {
        const int8_t* row = weight + static_cast<size_t>(k) * out;
        int8_t* to = p.packed + static_cast<size_t>(k / 4) * 64 + k % 4;
        for (int n = 0; n < out; ++n) {
            to[static_cast<size_t>(n / 16) * in * 16 + n % 16 * 4] = row[n];
            sums[n] += row[n];
        }
    }
    // the queries' share of 1 / sqrt(depth) is in their scale and bias
    const int depth = m->hidden / m->heads, queries = kind == QKV ? m->hidden : 0;
    for (int n = 0; n < out; ++n) {
        const float root = n < queries ? 1.0f / __builtin_sqrtf(static_cast<float>(depth)) : 1.0f;
        p.multiplier[n] = scale * column_scale[n] * root;
        p.addend[n] = bias[n] * root - static_cast<float>(zero_point * sums[n]) * p.multiplier[n];
    }
    release(sums);
    return 0;
}

// The LayerNorm after attention (0) or after the feed-forward part (1), given once.
// Returns 0, or 1 where memory is short, 2 where the layer or the place is not the model's.
EXPORT int sbmini_set_norm(Model* m, int layer, int which, const float* weight, const float* bias) {
    if (!m || !within(layer, 0, m->layers - 1) || !within(which, 0, 1) || !weight || !bias) return 2;
    Norm& n = m->layer[layer].norms[which];
    if (n.weight || n.bias) return 2;
    n = {copy(weight, m->hidden), copy(bias, m->hidden)};
    return n.weight && n.bias ? 0 : 1;
}

// ids, type_ids: (offsets[texts],); offsets: (texts + 1,); vectors: (texts, hidden). `level` at most `sbmini_level()`.
// Returns 0, or 1 where memory is short, 2 where an id or a length is out of range, or the model is not complete.
EXPORT int sbmini_encode(const Model* m, int level, const int32_t* ids, const int32_t* type_ids, const int32_t* offsets, int texts,
                         float* vectors) {
    if (!m || !ids || !type_ids || !offsets || !vectors || texts < 0 || offsets[0] != 0 || !complete(*m)) return 2;
    int longest = 0;
    for (int t = 0; t < texts; ++t) {
        const int64_t length = static_cast<int64_t>(offsets[t + 1]) - offsets[t];
        if (length < 1 || length > m->positions) return 2;
        if (length > longest) longest = static_cast<int>(length);
    }
    for (int i = 0; i < offsets[texts]; ++i)
        if (ids[i] < 0 || ids[i] >= m->vocabulary || type_ids[i] < 0 || type_ids[i] >= m->types) return 2;
#if HAS_VECTOR
    if (level < VNNI || level > sbmini_level()) return 2;
    return guarded<int>(1, [&] {
        void* memory = scratch.at_least(scratch_bytes(*m, offsets[texts], longest));
        if (!memory) return 1;
        run(*m, static_cast<Level>(level), ids, type_ids, offsets, texts, vectors, memory);
        return 0;
    });
#else
    return 2;
#endif
}
