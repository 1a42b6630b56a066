// Many short spans of a file, read in one call: a call from Python for each one takes five times as long.
#include "boundary.h"

#include <cerrno>

#include <unistd.h>

using namespace sbmini;

// file: a descriptor; starts: (spans,), each at least 0; out: (spans * size,), span after span. Returns a `Status`: BAD_LENGTH where
// the file ends before a span does, FAILED where the system gives an error.
EXPORT int sbmini_read_spans(int file, Array<const int64_t> starts, int64_t size, Array<uint8_t> out) noexcept {
    constexpr int64_t MOST = int64_t(1) << 40;
    if (size < 1 || size > MOST || starts.count < 0 || starts.count > MOST / size) return BAD_SIZE;
    if (!holds(starts, starts.count) || !holds(out, starts.count * size)) return BAD_ARRAY;
    for (int64_t i = 0; i < starts.count; ++i) {
        if (starts.data[i] < 0 || starts.data[i] > INT64_MAX - size) return BAD_LENGTH;
        for (int64_t done = 0; done < size;) {  // the system may give less at a time
            const ssize_t read = pread(file, out.data + i * size + done, static_cast<size_t>(size - done), starts.data[i] + done);
            if (read < 0 && errno == EINTR) continue;
            if (read < 0) return FAILED;
            if (read == 0) return BAD_LENGTH;
            done += read;
        }
    }
    return DONE;
}
