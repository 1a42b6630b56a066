// Many short spans of a file, read in one call: a call from Python for each one takes five times as long.
#include "boundary.h"

#include <cerrno>

#if defined(_WIN32)
#include <io.h>
#include <windows.h>
#else
#include <unistd.h>
#endif

using namespace sbmini;

namespace {

// Up to `size` bytes of a file from `start` on: how many came, 0 at its end; negative where the system gives an error. The file's
// own position is not used, so several threads may read the same file.
int64_t read_at(int file, uint8_t* to, int64_t size, int64_t start) noexcept {
    constexpr int64_t MOST = int64_t(1) << 30;  // that a system takes in one call
    const int64_t wanted = size < MOST ? size : MOST;
#if defined(_WIN32)
    OVERLAPPED place = {};
    place.Offset = static_cast<DWORD>(start);
    place.OffsetHigh = static_cast<DWORD>(start >> 32);
    DWORD read = 0;
    if (ReadFile(reinterpret_cast<HANDLE>(_get_osfhandle(file)), to, static_cast<DWORD>(wanted), &read, &place)) return read;
    return GetLastError() == ERROR_HANDLE_EOF ? 0 : -1;
#else
    for (;;) {
        const ssize_t read = pread(file, to, static_cast<size_t>(wanted), static_cast<off_t>(start));
        if (read >= 0 || errno != EINTR) return read;
    }
#endif
}

}  // namespace

// file: a descriptor; starts: (spans,), each at least 0; out: (spans * size,), span after span. Returns a `Status`: BAD_LENGTH where
// the file ends before a span does, FAILED where the system gives an error.
EXPORT int sbmini_read_spans(int file, Array<const int64_t> starts, int64_t size, Array<uint8_t> out) noexcept {
    constexpr int64_t MOST = int64_t(1) << 40;
    if (size < 1 || size > MOST || starts.count < 0 || starts.count > MOST / size) return BAD_SIZE;
    if (!holds(starts, starts.count) || !holds(out, starts.count * size)) return BAD_ARRAY;
    for (int64_t i = 0; i < starts.count; ++i) {
        if (starts.data[i] < 0 || starts.data[i] > INT64_MAX - size) return BAD_LENGTH;
        for (int64_t done = 0; done < size;) {  // the system may give less at a time
            const int64_t read = read_at(file, out.data + i * size + done, size - done, starts.data[i] + done);
            if (read < 0) return FAILED;
            if (read == 0) return BAD_LENGTH;
            done += read;
        }
    }
    return DONE;
}
