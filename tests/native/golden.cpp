// Small models of random weights through the library's C functions: a line a case and level, with a checksum of the vectors' bits
// and their first ones. Every processor and compiler must print the same lines (golden.txt). Only integers are drawn, and made
// floats by exact operations.
//
//     golden            a line for each case: of the portable level, and the word "same" for each other level, or "differs"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "encoder.h"

#define LEVEL golden
#include "lanes_portable.h"

using namespace sbmini;

extern "C" {
int sbmini_levels();
const char* sbmini_level_name(int level);
int sbmini_open(int, int, int, int, int, int, int, int, float, Bytes, Floats, Floats, Floats, Floats, Floats, Model**);
void sbmini_close(Model*);
int sbmini_set_product(Model*, int, int, int, int, Bytes, Floats, Floats, float, int, Floats);
int sbmini_set_norm(Model*, int, int, Floats, Floats);
int sbmini_set_poolings(Model*, Numbers);
int sbmini_add_projection(Model*, int, int, Floats, Floats, int);
int sbmini_encode(const Model*, int, int, Numbers, Numbers, Numbers, Vectors, Vectors);
int sbmini_apply(int, int, int, int, float, Floats, Vectors);
}

namespace {

uint64_t state = 1;

uint32_t draw() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<uint32_t>(state >> 33);
}

int whole(int least, int greatest) { return least + static_cast<int>(draw() % static_cast<uint32_t>(greatest - least + 1)); }

// From -1 to 1.
float fraction() { return static_cast<float>(whole(-4096, 4096)) / 4096.0f; }

// A number drawn, times a power of 2 drawn after it.
float scaled(int least, int greatest, int smallest, int largest) {
    const int number = whole(least, greatest);
    return std::ldexp(static_cast<float>(number), whole(smallest, largest));
}

std::vector<float> fractions(int64_t count, float scale, float around = 0) {
    std::vector<float> values(count);
    for (float& v : values) v = fraction() * scale + around;
    return values;
}

std::vector<int8_t> weights(int64_t count) {
    std::vector<int8_t> values(count);
    for (int8_t& v : values) v = static_cast<int8_t>(whole(-128, 127));
    return values;
}

template <class T>
Array<const T> given(const std::vector<T>& values) {
    return {values.data(), static_cast<int64_t>(values.size())};
}

uint64_t checksum(const std::vector<float>& values) {
    uint64_t sum = 14695981039346656037ull;  // FNV-1a
    for (const float& v : values) {
        uint32_t bits;
        std::memcpy(&bits, &v, 4);
        for (int i = 0; i < 4; ++i) sum = (sum ^ (bits >> 8 * i & 255)) * 1099511628211ull;
    }
    return sum;
}

int padded(int size, int to) { return (size + to - 1) / to * to; }

struct Case {
    const char* name;
    int layers, hidden, intermediate, heads, activation;
    std::vector<int32_t> poolings;
    std::vector<int> projections;
};

const std::vector<Case> cases = {
    {"mean-gelu", 2, 64, 128, 2, GELU, {MEAN}, {}},
    {"cls-tanh-gelu", 2, 128, 192, 2, GELU_TANH, {CLS}, {}},
    {"max-relu", 1, 192, 64, 2, RELU, {MAX}, {}},
    {"padded", 2, 78, 101, 3, GELU, {MEAN_SQRT_LEN, WEIGHTED_MEAN}, {}},
    {"projected", 1, 64, 64, 1, GELU, {MEAN, MAX}, {37, 5}},
    {"wide", 1, 384, 1536, 12, GELU, {MEAN}, {}},
};

// 0 where it is a model.
int open(const Case& c, Model** made, const std::vector<int8_t>& words) {
    const int width = padded(c.hidden, 64), inner = padded(c.intermediate, 64);
    const int depth = padded(c.hidden / c.heads, 32), span = padded(c.heads * depth, 64), vocabulary = 50, positions = 150;
    // each array has a name: the order in which arguments are drawn would be the compiler's
    const auto scales = fractions(vocabulary, 0.01f, 0.02f), type_rows = fractions(2 * width, 0.5f);
    const auto position_rows = fractions(positions * width, 0.5f), norm = fractions(width, 0.3f, 1.0f), shift = fractions(width, 0.3f);
    int failed = sbmini_open(c.layers, c.hidden, c.intermediate, c.heads, vocabulary, positions, 2, c.activation, 1e-12f,
                             given(words), given(scales), given(type_rows), given(position_rows), given(norm), given(shift), made);
    const int sizes[4][2] = {{width, 3 * span}, {span, width}, {width, inner}, {inner, width}};
    for (int layer = 0; layer < c.layers && !failed; ++layer) {
        for (int kind = 0; kind < 4 && !failed; ++kind) {
            const int in = sizes[kind][0], out = sizes[kind][1];
            auto weight = weights(static_cast<int64_t>(in) * out);
            if (kind == ATTENTION) std::fill(weight.begin() + static_cast<int64_t>(c.heads) * depth * out, weight.end(), int8_t{0});
            const auto column_scale = fractions(out, 0.0005f, 0.001f), bias = fractions(out, 0.2f), factor = fractions(in, 5.0f, 20.0f);
            const int zero_point = whole(0, 255);
            failed = sbmini_set_product(*made, layer, kind, in, out, given(weight), given(column_scale), given(bias), 0.03f,
                                        zero_point, given(factor));
        }
        for (int which = 0; which < 2 && !failed; ++which) {
            const auto weight = fractions(width, 0.3f, 1.0f), bias = fractions(width, 0.3f);
            failed = sbmini_set_norm(*made, layer, which, given(weight), given(bias));
        }
    }
    if (!failed) failed = sbmini_set_poolings(*made, given(c.poolings));
    int dimension = c.hidden * static_cast<int>(c.poolings.size());
    for (size_t n = 0; n < c.projections.size() && !failed; ++n) {
        const int out = c.projections[n], rows = padded(dimension, 16);
        const auto weight = fractions(static_cast<int64_t>(out) * rows, 0.2f), bias = fractions(padded(out, 16), 0.2f);
        failed = sbmini_add_projection(*made, dimension, out, given(weight), given(bias), n == 0 ? TANH : GELU);
        dimension = out;
    }
    return failed;
}

// Vectors of each level that is to be had; the first is the portable one's.
template <class Compute>
int compare(const char* name, Compute compute) {
    std::vector<float> first;
    int failures = 0;
    for (int level = PORTABLE; level < LEVELS; ++level) {
        if (!(sbmini_levels() >> level & 1)) continue;
        std::vector<float> values;
        const int status = compute(level, values);
        if (status) return std::printf("%s: status %d at level %s\n", name, status, sbmini_level_name(level)), 1;
        if (level == PORTABLE) {
            first = values;
            std::printf("%s %016llx", name, static_cast<unsigned long long>(checksum(values)));
            for (size_t i = 0; i < 6 && i < values.size(); ++i) std::printf(" %a", static_cast<double>(values[i]));
            std::printf("\n");
        } else {
            const bool same = values.size() == first.size() && !std::memcmp(values.data(), first.data(), 4 * values.size());
            std::fprintf(stderr, "%s %s %s\n", name, sbmini_level_name(level), same ? "same" : "differs");
            failures += !same;
        }
    }
    return failures;
}

int run_case(const Case& c) {
    state = 7;
    const int width = padded(c.hidden, 64);
    std::vector<int8_t> words = weights(50 * width);
    for (int i = 0; i < 50 * width; ++i)
        if (i % width >= c.hidden) words[i] = 0;
    Model* model = nullptr;
    if (const int failed = open(c, &model, words)) return std::printf("%s: status %d\n", c.name, failed), 1;
    std::vector<int32_t> ids, types, offsets = {0};
    for (const int length : {1, 2, 15, 16, 17, 33, 97, 150})
        for (int i = 0; i < length; ++i) {
            ids.push_back(whole(0, 49));
            types.push_back(whole(0, 1));
            if (i == length - 1) offsets.push_back(static_cast<int32_t>(ids.size()));
        }
    const int dimension = c.projections.empty() ? c.hidden * static_cast<int>(c.poolings.size()) : c.projections.back();
    const int failures = compare(c.name, [&](int level, std::vector<float>& values) {
        std::vector<float> vectors((offsets.size() - 1) * dimension), tokens(ids.size() * c.hidden);
        const int status = sbmini_encode(model, level, level == PORTABLE ? 1 : level % 3 + 1, given(ids), given(types), given(offsets),
                                         {vectors.data(), static_cast<int64_t>(vectors.size())},
                                         {tokens.data(), static_cast<int64_t>(tokens.size())});
        values = vectors;
        values.insert(values.end(), tokens.begin(), tokens.end());
        return status;
    });
    sbmini_close(model);
    return failures;
}

// The functions of rows, on numbers of all sizes.
int run_functions() {
    int failures = 0;
    state = 11;
    std::vector<float> x(13 * 77);
    for (float& v : x) v = scaled(-4096, 4096, -32, -6);
    for (const int function : {0, 1, 2, 3, 8, 9}) {
        char name[32];
        std::snprintf(name, sizeof name, "function-%d", function);
        failures += compare(name, [&](int level, std::vector<float>& values) {
            values.resize(x.size());
            return sbmini_apply(level, function, 13, 77, 1e-12f, given(x), {values.data(), static_cast<int64_t>(values.size())});
        });
    }
    return failures;
}

// The portable level's fused multiply-add against the library's, where rounding twice would show: the exact sum lies near the
// middle between two floats.
int run_fused() {
    int failures = 0;
    state = 13;
    for (int n = 0; n < 200000; ++n) {
        const float a = scaled(1 << 23, (1 << 24) - 1, -40, 10), b = scaled(1 << 23, (1 << 24) - 1, -40, 10);
        float c = scaled(-(1 << 24), 1 << 24, -60, 60);
        if (n % 4 == 1) c = -a * b;                                                                        // cancels
        if (n % 4 == 2) c = scaled(1, 255, 20, 30) * a * b;                                                // a b is its last bits
        if (n % 4 == 3) c = std::ldexp(n % 8 == 3 ? 1.0f : -1.0f, std::ilogb(a) + std::ilogb(b) + whole(23, 55));
        const float ours = LEVEL::fused(a, b, c), exact = std::fmaf(a, b, c);
        if (std::memcmp(&ours, &exact, 4)) {
            if (!failures) std::printf("fused(%a, %a, %a) is %a, not %a\n", a, b, c, ours, exact);
            ++failures;
        }
    }
    return failures;
}

}  // namespace

int main() {
    int failures = run_fused();
    std::printf("fused %d differ\n", failures);
    for (const Case& c : cases) failures += run_case(c);
    failures += run_functions();
    return failures != 0;
}
