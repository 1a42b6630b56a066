// What functions that C calls have in common: how they are exported, what they check, and that no exception leaves them.
#pragma once

#include "encoder.h"

#include <new>

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace sbmini {

// Whether an array has so many elements, all of them in the address space, the first one aligned.
template <class T>
bool holds(Array<T> array, int64_t count) {
    const uintptr_t start = reinterpret_cast<uintptr_t>(array.data);
    return start != 0 && start % alignof(T) == 0 && array.count == count &&
           static_cast<uint64_t>(count) <= (UINTPTR_MAX - start) / sizeof(T);
}

// What `body` returns. No exception may reach the caller, which is C.
template <class F>
int guarded(F body) noexcept {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    } catch (...) {
        return FAILED;
    }
}

}  // namespace sbmini
