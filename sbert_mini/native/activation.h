// GELU as x Phi(x), Phi(x) = 1/2 + w Q(w^2 - 1), w = sqrt(2) x / 4.4 cut off at -sqrt(2) and sqrt(2), Q a polynomial of degree 8.
//
// Beyond 4.4 Phi is 0 and 1. The first row is GELU with the error function, the second one "gelu_tanh", whose Phi is
// 1 / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))). The coefficients have the least greatest error of x Phi(x) with Q(1) = 1 / sqrt(8)
// (Lawson's reweighted least squares in double precision, then rounded). It is 2.5e-5 and 3.3e-5, a thousandth of the step
// of the bytes that follow.
#pragma once

namespace sbmini {
namespace {

constexpr int DEGREE = 8;
constexpr float PER_UNIT = 0x1.492046p-2f, ENDS = 0x1.6a09e6p+0f;  // sqrt(2) / 4.4; sqrt(2)

constexpr float PHI[2][DEGREE + 1] = {
    {0x1.ff09f4p-2f, -0x1.f4e892p-3f, 0x1.600d34p-3f, -0x1.fee1f8p-4f, 0x1.55893ep-4f, -0x1.973dcep-5f, 0x1.18275ep-5f,
     -0x1.91daccp-6f, 0x1.18895p-7f},
    {0x1.ff2864p-2f, -0x1.f58fcap-3f, 0x1.60b672p-3f, -0x1.fe2dc8p-4f, 0x1.4e9e5ap-4f, -0x1.8209a2p-5f, 0x1.17a738p-5f,
     -0x1.b8900ap-6f, 0x1.40eafep-7f},
};

}  // namespace
}  // namespace sbmini
