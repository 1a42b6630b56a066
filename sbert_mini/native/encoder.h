// What encoder.cpp, which any processor runs, and vector.cpp, which needs AVX-512 with VNNI, share.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sbmini {

enum Level { NONE = 0, VNNI = 1, AMX = 2 };

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
using Floats = Array<const float>;
using Numbers = Array<const int32_t>;
using Vectors = Array<float>;

// One quantized matrix product: y = (u8(x) - zero_point) W * scales + bias.
struct Product {
    int in = 0, out = 0;
    int8_t* packed = nullptr;     // [out / 16][in / 4][16][4]: what VNNI and AMX read
    float* multiplier = nullptr;  // (out,): the activations' scale times the column's; for queries, by 1 / sqrt(depth) too
    float* addend = nullptr;      // (out,): the bias less what the zero point adds
    float* factor = nullptr;      // (in,): u8(x) = clip(rint(x * factor) + zero_point, 0, 255)
    int zero_point = 0;
};

struct Norm {
    float *weight = nullptr, *bias = nullptr;  // (hidden,)
};

struct Layer {
    Product products[4];  // query, key and value together; attention output; wide; narrow
    Norm norms[2];        // after attention; after the feed-forward part
};
enum { QKV = 0, ATTENTION = 1, WIDE = 2, NARROW = 3 };

struct Model {
    int layers, hidden, intermediate, heads, vocabulary, positions, types;
    float epsilon;
    const int8_t* words;       // (vocabulary, hidden), the caller's memory
    float* word_scales;        // (vocabulary,)
    float* type_rows;          // (types, hidden)
    float* position_rows;      // (positions, hidden)
    Norm norm;                 // of the embeddings
    Layer* layer;
};

// Memory aligned to 64 bytes; nullptr where there is none.
void* allocate(size_t bytes);
void release(void* memory);

// Bytes that `run` needs for so many tokens, of which a text has at most `longest`.
size_t scratch_bytes(const Model& model, int tokens, int longest);

// Tokens of several texts, one after the other without padding -> one vector of length 1 a text: the mean of its tokens.
// offsets: (texts + 1,), where each text begins.
void run(const Model& model, Level level, const int32_t* ids, const int32_t* type_ids, const int32_t* offsets, int texts,
         float* vectors, void* scratch);

}  // namespace sbmini
