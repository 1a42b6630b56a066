// Sums of rows of a table, scaled to length 1: the vectors of a static model.
//
// Every component is added in the order of the tokens, and the squares in sixteen lanes, so compilers may use any vectors of the
// processor: the bits are the same.
#include "boundary.h"

#include <algorithm>
#include <cmath>
#include <vector>

using namespace sbmini;

namespace {

constexpr int64_t MOST_TOKENS = 1 << 24, MOST_COMPONENTS = 1 << 16;
constexpr int LANES = 16;

// Scales `sum` to length 1 into `out`; zeros stay zeros.
void normalize(const float* sum, int64_t dim, float* out) {
    float lanes[LANES] = {};
    const int64_t whole = dim - dim % LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int lane = 0; lane < LANES; ++lane) lanes[lane] += sum[i + lane] * sum[i + lane];
    for (int64_t i = whole; i < dim; ++i) lanes[i - whole] += sum[i] * sum[i];
    double squares = 0;
    for (int lane = 0; lane < LANES; ++lane) squares += lanes[lane];
    const float length = static_cast<float>(std::sqrt(squares));
    for (int64_t i = 0; i < dim; ++i) out[i] = length > 0 ? sum[i] / length : 0;
}

// Writes the vector of each text; `add(id, sum)` adds a token's row.
template <class Add>
int encode(int64_t tokens, int64_t dim, Numbers ids, Array<const int64_t> offsets, Vectors out, Add add) {
    if (tokens < 1 || tokens > MOST_TOKENS || dim < 1 || dim > MOST_COMPONENTS) return BAD_SIZE;
    const int64_t texts = offsets.count - 1;
    if (texts < 0 || texts > INT64_MAX / MOST_COMPONENTS || !holds(offsets, offsets.count)) return BAD_LENGTH;
    if (!holds(ids, ids.count) || !holds(out, texts * dim)) return BAD_ARRAY;
    if (offsets.data[0] != 0 || offsets.data[texts] != ids.count) return BAD_LENGTH;
    std::vector<float> sum(static_cast<size_t>(dim));
    for (int64_t text = 0; text < texts; ++text) {
        const int64_t start = offsets.data[text], end = offsets.data[text + 1];
        if (start > end || end > ids.count) return BAD_LENGTH;
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t i = start; i < end; ++i) {
            if (ids.data[i] < 0 || ids.data[i] >= tokens) return BAD_TOKEN;
            add(ids.data[i], sum.data());
        }
        normalize(sum.data(), dim, out.data + text * dim);
    }
    return DONE;
}

}  // namespace

// rows: (tokens, dim / 2), two components a byte, as `sbert_mini/model/token_table.py` packs them; scales: (tokens,); ids: of all
// texts, one after the other; offsets: (texts + 1,); out: (texts, dim). Returns a `Status`.
EXPORT int sbmini_table_packed(Unsigned rows, Floats scales, Numbers ids, Array<const int64_t> offsets, Vectors out) noexcept {
    return guarded([&] {
        const int64_t tokens = scales.count, half = tokens > 0 ? rows.count / tokens : 0;
        if (half < 1 || !holds(scales, tokens) || !holds(rows, tokens * half)) return static_cast<int>(BAD_ARRAY);
        return encode(tokens, 2 * half, ids, offsets, out, [&](int64_t id, float* sum) {
            const uint8_t* row = rows.data + id * half;
            const float scale = scales.data[id];
            for (int64_t i = 0; i < half; ++i) sum[i] += static_cast<float>((row[i] & 15) - 8) * scale;
            for (int64_t i = 0; i < half; ++i) sum[half + i] += static_cast<float>((row[i] >> 4) - 8) * scale;
        });
    });
}

// rows: (tokens, dim); the others as above.
EXPORT int sbmini_table_floats(Floats rows, int64_t dim, Numbers ids, Array<const int64_t> offsets, Vectors out) noexcept {
    return guarded([&] {
        const int64_t tokens = dim > 0 ? rows.count / dim : 0;
        if (tokens < 1 || !holds(rows, tokens * dim)) return static_cast<int>(BAD_ARRAY);
        return encode(tokens, dim, ids, offsets, out, [&](int64_t id, float* sum) {
            const float* row = rows.data + id * dim;
            for (int64_t i = 0; i < dim; ++i) sum[i] += row[i];
        });
    });
}
