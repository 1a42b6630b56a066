// What encoder.cpp, levels.cpp and the code of each level share. A level is a set of instructions with code of its own.
//
// No function of this file has a body: the linker would take one body for all levels, and it could need instructions that the
// processor lacks.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sbmini {

// In the order of `LEVELS` in sbert_mini/runtime/native.py; a later one is faster where the processor has both.
enum Level { NONE = 0, PORTABLE = 1, AVX2 = 2, AVX_VNNI = 3, AVX512_VNNI = 4, AMX_INT8 = 5, NEON_DOTPROD = 6, LEVELS = 7 };

// What the exported functions return; `sbmini_error` gives the text.
enum Status {
    DONE = 0,
    NO_MEMORY = 1,
    BAD_SIZE = 2,
    BAD_LAYER = 3,
    BAD_KIND = 4,
    BAD_ARRAY = 5,
    GIVEN_TWICE = 6,
    INCOMPLETE = 7,
    BAD_TOKEN = 8,
    BAD_LENGTH = 9,
    BAD_LEVEL = 10,
    FAILED = 11,
    BAD_TEXT = 12,
    NO_ROOM = 13
};

// An array of the caller: where it begins, and how many elements it has.
template <class T>
struct Array {
    T* data;
    int64_t count;
};
using Bytes = Array<const int8_t>;
using Unsigned = Array<const uint8_t>;
using Floats = Array<const float>;
using Numbers = Array<const int32_t>;
using Vectors = Array<float>;
using Sums = Array<int32_t>;

// Rows and columns are padded with zeros to multiples of this: a whole number of tiles of every level.
constexpr int BLOCK = 64;

// Bytes of working memory that a level's `multiply` needs at most, for each component of a row.
constexpr int PREPARED_BYTES = 192;

// One quantized matrix product: y = (u8(x) - zero_point) W * scales + bias.
struct Product {
    int in = 0, out = 0;          // multiples of BLOCK
    int8_t* packed = nullptr;     // [out / 16][in / 4][16][4]: what VNNI and AMX read
    float* multiplier = nullptr;  // (out,): the activations' scale times the column's; for queries, by log2(e) / sqrt(depth) too
    float* addend = nullptr;      // (out,): the bias less what the zero point adds
    float* factor = nullptr;      // (in,): u8(x) = clip(rint(x * factor) + zero_point, 0, 255)
    int32_t* offset = nullptr;    // (out,): 128 times the column's sum, for levels that multiply signed bytes alone
    int zero_point = 0;
};

struct Norm {
    float *weight = nullptr, *bias = nullptr;  // (width,)
};

struct Layer {
    Product products[4];  // query, key and value together; attention output; wide; narrow
    Norm norms[2];        // after attention; after the feed-forward part
};
enum Kind { QKV = 0, ATTENTION = 1, WIDE = 2, NARROW = 3 };

enum Activation { GELU = 0, GELU_TANH = 1, RELU = 2, TANH = 3, IDENTITY = 4 };
enum Pooling { CLS = 0, MAX = 1, MEAN = 2, MEAN_SQRT_LEN = 3, WEIGHTED_MEAN = 4 };
constexpr int MOST_POOLINGS = 8, MOST_PROJECTIONS = 8;

// A float product after the pooling.
struct Projection {
    int in = 0, out = 0;
    float* weight = nullptr;  // (out, in padded to a multiple of 16)
    float* bias = nullptr;    // (out padded to a multiple of 16,)
    Activation activation = IDENTITY;
};

struct Model {
    int layers, heads, vocabulary, positions, types;
    int hidden;         // components of a token's vector
    int width;          // of a token's row: `hidden` padded to a multiple of BLOCK
    int inner;          // of the feed-forward part, padded to a multiple of BLOCK
    int depth;          // of a head, padded to a multiple of 32
    int span;           // of all heads together, padded to a multiple of BLOCK
    Activation activation;
    float epsilon;
    const int8_t* words;    // (vocabulary, width), the caller's memory
    float* word_scales;     // (vocabulary,)
    float* type_rows;       // (types, width)
    float* position_rows;   // (positions, width)
    Norm norm;              // of the embeddings
    Layer* layer;
    int poolings, projections;
    Pooling pooling[MOST_POOLINGS];
    Projection projection[MOST_PROJECTIONS];
    int pooled, dimension;  // components after the poolings; of a vector
    int widest;             // of all that lies between
};

// Functions of single rows, for tests.
enum Function { APPLY_ACTIVATION = 0, APPLY_SOFTMAX = 8, APPLY_NORM = 9 };

// Tokens of several texts, one after the other without padding. offsets: (texts + 1,), where each text begins.
struct Batch {
    const int32_t *ids, *types, *offsets;
    int texts, tokens, longest;
};

// Threads that compute a batch together: each one a share of the columns of every product.
struct Team {
    int size = 0;     // 0 until all are there
    int arrived = 0;  // at the next `meet`
    int meetings = 0;
};
constexpr int MOST_THREADS = 16;

// Returns when all threads of a team have called it; what they wrote before is seen by all.
void meet(Team& team);

// What each level has.
struct Kernels {
    // Bytes of working memory that `encode` needs, or all threads together that call `encode_share`.
    size_t (*scratch_bytes)(const Model& model, const Batch& batch, int threads);
    // A text's vector of length 1, (texts, dimension), and each token's vector, (tokens, hidden), where it is not null.
    void (*encode)(const Model& model, const Batch& batch, float* vectors, float* token_vectors, void* scratch);
    // The same by a team of several threads, each of which calls it with its number: the same bits.
    void (*encode_share)(const Model& model, const Batch& batch, float* vectors, float* token_vectors, void* scratch, Team& team,
                         int number);
    // The sums of a product alone, (rows, out). x: (rows padded to a multiple of BLOCK, in).
    void (*multiply)(const Product& product, const uint8_t* x, int rows, int32_t* sums, void* scratch);
    // A `Function`, or an `Activation` from APPLY_ACTIVATION on, of rows in place; `padded` floats, of which `columns` count.
    void (*apply)(int function, float* row, int columns, int padded);
    // Repeats the level's own instruction for multiply-adds of bytes on registers alone; returns how many of them it did.
    int64_t (*peak)(int64_t rounds);
};

// Null where the compiler does not know the instructions.
extern const Kernels* const kernels_of[LEVELS];
extern const Kernels portable_kernels, avx2_kernels, avx_vnni_kernels, avx512_vnni_kernels, amx_int8_kernels, neon_dotprod_kernels;

// Whether the processor and the operating system have a level's instructions and registers.
bool processor_has(Level level);

// Memory aligned to 64 bytes; nullptr where there is none.
void* allocate(size_t bytes);
void release(void* memory);

}  // namespace sbmini

// Which levels are compiled: the compiler's name and version decide.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define COMPILES_AVX2 1
#if defined(__clang__)
#define COMPILES_AVX512_VNNI (__clang_major__ >= 7)
#define COMPILES_AVX_VNNI (__clang_major__ >= 12)
#define COMPILES_AMX_INT8 (__clang_major__ >= 12)
#else
#define COMPILES_AVX512_VNNI (__GNUC__ >= 9)
#define COMPILES_AVX_VNNI (__GNUC__ >= 11)
#define COMPILES_AMX_INT8 (__GNUC__ >= 11)
#endif
#else
#define COMPILES_AVX2 0
#define COMPILES_AVX_VNNI 0
#define COMPILES_AVX512_VNNI 0
#define COMPILES_AMX_INT8 0
#endif
#if defined(__aarch64__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#if defined(__clang__)
#define COMPILES_NEON_DOTPROD (__clang_major__ >= 16 || defined(__ARM_FEATURE_DOTPROD))
#else
#define COMPILES_NEON_DOTPROD (defined(__GNUC__) && __GNUC__ >= 8)
#endif
#else
#define COMPILES_NEON_DOTPROD 0
#endif
