"""Bytes of a document -> text, in the encoding that the file states, that the user states, or that is detected."""

import codecs
import re
from dataclasses import dataclass

from sbert_mini.errors import InputError, UsageError

SNIFFED_BYTES = 8192
"""Bytes at the beginning of a file that tell whether it is text."""
_DETECTED_BYTES = 1 << 16
"""Bytes by which an encoding is detected."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_USUAL = ("cp1252",)
"""Encodings that are taken where others fit as well: short texts tell too little."""
_WITH_ZEROS = ["utf_7", "utf_8", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le"]
"""Encodings that are not detected: a file in one of them has a byte order mark, zero bytes, or would be valid UTF-8."""
_META = re.compile(rb"<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}[\"']?([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)


@dataclass(frozen=True)
class Decoded:
    """A document's text.

    Attributes:
        text: the text, without a byte order mark; its line ends are the file's.
        encoding: Python's name of the encoding; `utf-8-sig`, `utf-16` and `utf-32` have a byte order mark.
    """

    text: str
    encoding: str


def check_encoding(name: str) -> str:
    """Return Python's name of an encoding of text.

    Raises:
        UsageError: there is none of this name.
    """
    normalized = _text_encoding(name)
    if normalized is None:
        raise UsageError(f"the encoding must be one that Python knows, such as cp1252 or shift_jis; found {name!r}")
    return normalized


def is_binary(head: bytes) -> bool:
    """Return whether the first bytes of a file tell that it is no text: a NUL byte without a mark of UTF-16 or UTF-32."""
    return b"\0" in head and not head.startswith(tuple(mark for mark, _ in _MARKS))


def decode(data: bytes, stated: str | None = None, *, is_html: bool = False) -> Decoded:
    """Return the text of a document.

    A byte order mark tells the encoding. Without one it is UTF-8 where the bytes are valid UTF-8. Other bytes are read in the
    encoding that the user states, that a `meta` element of HTML states, or that charset-normalizer detects, in this order.

    Args:
        data: the whole file.
        stated: the encoding of files that are not UTF-8; None to detect it.
        is_html: whether a `meta` element may state it.

    Raises:
        InputError: the bytes do not fit the encoding, or none is detected.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return Decoded(_decoded(data, encoding), encoding)
    try:
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        pass
    if stated is not None:
        return Decoded(_decoded(data, stated), stated)
    if is_html and (match := _META.search(data[: 2 * SNIFFED_BYTES])):
        encoding = _text_encoding(match[1].decode("ascii")) or ""
        if encoding not in ("", "utf-8"):
            return Decoded(_decoded(data, encoding), encoding)
    encoding = _detected(data)
    return Decoded(_decoded(data, encoding), encoding)


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except (UnicodeError, ValueError) as error:
        raise InputError(f"the text is not {encoding}: {error}") from error


def _detected(data: bytes) -> str:
    from charset_normalizer import from_bytes

    matches = from_bytes(data[:_DETECTED_BYTES], cp_exclusion=_WITH_ZEROS)
    best = matches.best()
    equal = [
        name
        for match in matches
        if best is not None and match.chaos <= best.chaos
        for name in match.could_be_from_charset
    ]
    likely = next((name for name in _USUAL if name in equal), None if best is None else best.encoding)
    encoding = None if likely is None else _text_encoding(likely)
    if encoding is None:
        raise InputError("the text is not UTF-8, and no other encoding was detected: name it with --encoding")
    return encoding


def _text_encoding(name: str) -> str | None:
    """Return Python's name of an encoding of text; None where there is none, or it is one of bytes, such as `hex`."""
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    return codec.name if getattr(codec, "_is_text_encoding", True) else None
