// Columns of a product from a level's `sums<R>`: R rows, at most ROWS, and PANEL columns. Included by the levels that have no
// `multiply` of their own, after `sums`, ROWS, PANEL, and `Prepared`, `PREPARED` and `prepare`: rows are first brought into the form
// that `sums` reads, PREPARED of them at a time; 0 where they need none.

namespace sbmini {
namespace LEVEL {
namespace {

template <int MOST>
INLINE void sums_of(int count, const Prepared* x, const Product& p, int column, int32_t* out) {
    if constexpr (MOST > 1) {
        if (count < MOST) return sums_of<MOST - 1>(count, x, p, column, out);
    }
    sums<MOST>(x, p, column, out);
}

template <class Then>
void multiply(const uint8_t* x, int rows, const Product& p, Columns columns, void* space, const Then& then) {
    alignas(64) int32_t buffer[ROWS * PANEL];
    const int together = PREPARED > 0 ? PREPARED : rows;
    for (int first = 0; first < rows; first += together) {
        const int end = rows - first < together ? rows : first + together;
        const Prepared* from = prepare(x + static_cast<size_t>(first) * p.in, static_cast<size_t>(end - first) * p.in, space);
        for (int column = columns.begin; column < columns.end; column += PANEL)
            for (int row = first; row < end; row += ROWS) {
                const int count = end - row < ROWS ? end - row : ROWS;
                sums_of<ROWS>(count, from + static_cast<size_t>(row - first) * p.in, p, column, buffer);
                finish<PANEL>(buffer, count, row, column, p, then);
            }
    }
}

}  // namespace
}  // namespace LEVEL
}  // namespace sbmini
