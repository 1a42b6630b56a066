"""Numbers as a person reads them: with their noun, and sizes in MB."""


def amount(count: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: `1 row`, `2 rows`; `plural` where it is not the noun with an s."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def size(count: int) -> str:
    """Return a number of bytes as `22 MB`; two digits where it is small, `2.3 MB`."""
    value, unit = float(count), "bytes"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    if unit == "bytes":
        return amount(count, "byte")
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
