// The activations as one function: max(x, 0) - P(min(|x|, 5)), P a polynomial of degree 13 in u = 2 / 5 min(|x|, 5) - 1.
//
// GELU: x Phi(x) = max(x, 0) - a (1 - Phi(a)), a = |x|; beyond 5 what is taken off is below 2e-6. Of "gelu_tanh" it is
// a / (1 + exp(2 sqrt(2 / pi) (a + 0.044715 a^3))), of ReLU 0. The coefficients are the interpolation at the 200 zeros of a
// Chebyshev polynomial, by least squares in double precision, then rounded; tests/native/test_arithmetic.py computes them again. The
// largest error of a float32 result is 2e-6.
#pragma once

namespace sbmini {
namespace {

constexpr int DEGREE = 13;
constexpr float REACH = 5.0f;

constexpr float TAIL[3][DEGREE + 1] = {
    {0x1.fcbcccp-7f, -0x1.811d6p-4f, 0x1.dc8058p-3f, -0x1.0722acp-2f, -0x1.1cb016p-6f, 0x1.ad0b7cp-2f, -0x1.f697a6p-2f,
     0x1.3c7988p-4f, 0x1.619170p-2f, -0x1.01713ep-2f, -0x1.7af39ep-4f, 0x1.0d7f24p-3f, 0x1.d9ffc6p-8f, -0x1.a0e172p-6f},
    {0x1.ee55dp-7f, -0x1.84a1d2p-4f, 0x1.e7a158p-3f, -0x1.0583bcp-2f, -0x1.4773a4p-5f, 0x1.b42b26p-2f, -0x1.c74656p-2f,
     0x1.90930ap-5f, 0x1.2d15d6p-2f, -0x1.af435p-3f, -0x1.010d98p-4f, 0x1.ab99a6p-4f, 0x1.eb0a84p-14f, -0x1.2d6106p-6f},
    {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
};

}  // namespace
}  // namespace sbmini
