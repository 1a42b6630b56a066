// Which levels there are: what the compiler knew, and what the processor and the operating system have.

#include "encoder.h"

#if COMPILES_AVX2
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif
#if COMPILES_NEON_DOTPROD
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

namespace sbmini {

const Kernels* const kernels_of[LEVELS] = {
    nullptr,
    &portable_kernels,
#if COMPILES_AVX2
    &avx2_kernels,
#else
    nullptr,
#endif
#if COMPILES_AVX_VNNI
    &avx_vnni_kernels,
#else
    nullptr,
#endif
#if COMPILES_AVX512_VNNI
    &avx512_vnni_kernels,
#else
    nullptr,
#endif
#if COMPILES_AMX_INT8
    &amx_int8_kernels,
#else
    nullptr,
#endif
#if COMPILES_NEON_DOTPROD
    &neon_dotprod_kernels,
#else
    nullptr,
#endif
};

namespace {

#if COMPILES_AVX2

struct Leaf {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

Leaf leaf(unsigned number, unsigned part) {
    Leaf l;
    if (!__get_cpuid_count(number, part, &l.a, &l.b, &l.c, &l.d)) return Leaf{};
    return l;
}

bool all(unsigned word, unsigned bits) { return (word & bits) == bits; }

// The registers whose contents the operating system saves.
uint64_t saved_registers() {
    constexpr unsigned OSXSAVE = 1u << 27;
    if (!all(leaf(1, 0).c, OSXSAVE)) return 0;
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return static_cast<uint64_t>(high) << 32 | low;
}

bool has_avx2() {
    constexpr unsigned FMA = 1u << 12, AVX = 1u << 28, AVX2_BIT = 1u << 5, XMM_YMM = 0x6;
    return (saved_registers() & XMM_YMM) == XMM_YMM && all(leaf(1, 0).c, FMA | AVX) && all(leaf(7, 0).b, AVX2_BIT);
}

bool has_avx_vnni() {
    constexpr unsigned AVX_VNNI_BIT = 1u << 4;
    return has_avx2() && leaf(7, 0).a >= 1 && all(leaf(7, 1).a, AVX_VNNI_BIT);
}

bool has_avx512_vnni() {
    constexpr unsigned F = 1u << 16, DQ = 1u << 17, BW = 1u << 30, VL = 1u << 31, VNNI = 1u << 11, XMM_YMM_ZMM = 0xe6;
    return has_avx2() && (saved_registers() & XMM_YMM_ZMM) == XMM_YMM_ZMM && all(leaf(7, 0).b, F | DQ | BW | VL) &&
           all(leaf(7, 0).c, VNNI);
}

bool has_amx_int8() {
#if defined(__linux__) && defined(SYS_arch_prctl)
    constexpr unsigned TILE = 1u << 24, INT8 = 1u << 25, TILES = 3u << 17;
    if (!has_avx512_vnni() || !all(leaf(7, 0).d, TILE | INT8) || (saved_registers() & TILES) != TILES) return false;
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}

#endif

#if COMPILES_NEON_DOTPROD
bool has_neon_dotprod() {
#if defined(__linux__)
    constexpr unsigned long ASIMDDP = 1ul << 20;
    return (getauxval(AT_HWCAP) & ASIMDDP) != 0;
#elif defined(__APPLE__)
    int has = 0;
    size_t size = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, nullptr, 0) == 0 && has != 0;
#else
    return false;
#endif
}
#endif

}  // namespace

bool processor_has(Level level) {
    switch (level) {
        case PORTABLE: return true;
#if COMPILES_AVX2
        case AVX2: return has_avx2();
        case AVX_VNNI: return has_avx_vnni();
        case AVX512_VNNI: return has_avx512_vnni();
        case AMX_INT8: return has_amx_int8();
#endif
#if COMPILES_NEON_DOTPROD
        case NEON_DOTPROD: return has_neon_dotprod();
#endif
        default: return false;
    }
}

}  // namespace sbmini
