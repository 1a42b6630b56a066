"""What BERT's tokenizer does with each character -> `sbert_mini/native/unicode_tables.h`.

    python -m tests.native.unicode_tables

Every entry is asked of the `tokenizers` library, because no single version of Unicode has its answers. Version 0.23.3, which the
header was made with, has three: canonical decomposition of Unicode 9 (the crate unicode-normalization-alignments); marks,
punctuation and control characters of Unicode 8 (the crate unicode_categories); white space and lower case of Unicode 17 (Rust's
standard library). A test makes the header again and compares, and another compares native code with the library for every
character.
"""

import itertools
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import tokenizers
from tokenizers import normalizers, pre_tokenizers

HEADER = Path(__file__).resolve().parents[2] / "sbert_mini" / "native" / "unicode_tables.h"
TOKENIZERS = "0.23.3"
BLOCK = 128
"""Characters of a block: blocks that are alike are stored once."""
FLAGS = ("CONTROL", "SPACE", "PUNCTUATION", "CHINESE", "MARK", "REORDERED", "DECOMPOSED", "LOWERED")
SURROGATES = range(0xD800, 0xE000)
HANGUL = range(0xAC00, 0xD7A4)
ALL = [code for code in range(0x110000) if code not in SURROGATES]
BETWEEN = "0"
"""A character that no step changes, to tell the results of others apart."""
DOTTED_I = 0x130
"""The one character that has two in lower case."""
WIDTH = 130


def each(change: Callable[[str], str], codes: Sequence[int]) -> dict[int, str]:
    """Return what a normalizer makes of each character alone, by one call."""
    codes = [code for code in codes if chr(code) != BETWEEN]
    parts = change(BETWEEN + "".join(chr(code) + BETWEEN for code in codes)).split(BETWEEN)[1:-1]
    return {**dict(zip(codes, parts, strict=True)), ord(BETWEEN): BETWEEN}


def bert(**flags: bool) -> Callable[[str], str]:
    """Return BERT's normalizer with these steps alone."""
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**{**off, **flags}).normalize_str


def split_classes(codes: Sequence[int]) -> tuple[set[int], set[int]]:
    """Return the characters that the pre-tokenizer removes (white space), and those that it makes words of (punctuation)."""
    splitter, spaces, punctuation = pre_tokenizers.BertPreTokenizer(), set(), set()
    for block in _batched(codes, 20_000):
        words = splitter.pre_tokenize_str("".join(f"{BETWEEN}{chr(code)}{BETWEEN} " for code in block))
        spans: dict[int, list[tuple[int, int]]] = {}
        for _, (start, end) in words:
            spans.setdefault(start // 4, []).append((start % 4, end - start + start % 4))
        for number, code in enumerate(block):
            if spans[number] == [(0, 1), (2, 3)]:
                spaces.add(code)
            elif spans[number] == [(0, 1), (1, 2), (2, 3)]:
                punctuation.add(code)
            else:
                assert spans[number] == [(0, 3)], hex(code)
    return spaces, punctuation


def _batched(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def combining_classes(stable: Sequence[int]) -> dict[int, int]:
    """Return the canonical combining class of each character that has one other than 0, of those that decompose to themselves."""
    order = normalizers.NFD().normalize_str
    low, high = 0x334, 0x345  # of the classes 1 and 240, the least and the greatest
    assert (unicodedata.combining(chr(low)), unicodedata.combining(chr(high))) == (1, 240)

    def swapped(first: Callable[[int], str], second: Callable[[int], str]) -> set[int]:
        """Return the characters with which two marks change places, by one call."""
        codes = [code for code in stable if code not in (ord(BETWEEN), low, high)]
        units = order("".join(BETWEEN + first(code) + second(code) for code in codes)).split(BETWEEN)[1:]
        return {
            code
            for code, unit in zip(codes, units, strict=True)
            if unit == second(code) + first(code) != first(code) + second(code)
        }

    def moved(first: int, second: int) -> bool:
        return order(f"{BETWEEN}{chr(first)}{chr(second)}") == f"{BETWEEN}{chr(second)}{chr(first)}" and first != second

    marks = {low, high} | swapped(lambda _: chr(high), chr) | swapped(chr, lambda _: chr(low))
    examples: dict[int, int] = {}
    for code in sorted(marks):  # the first one of each class, on which all versions of Unicode agree
        examples.setdefault(unicodedata.combining(chr(code)), code)
    classes = {}
    for code in marks:
        same = [
            number for number, mark in examples.items() if number and not moved(code, mark) and not moved(mark, code)
        ]
        assert len(same) == 1, hex(code)
        classes[code] = same[0]
    return classes


def table() -> dict[str, dict[int, object]]:
    """Return the flags, the difference to the lower case, the decomposition and the combining class of each character."""
    cleaned, chinese = each(bert(clean_text=True), ALL), each(bert(handle_chinese_chars=True), ALL)
    decomposed, lowered = each(normalizers.NFD().normalize_str, ALL), each(bert(lowercase=True), ALL)
    assert lowered == each(normalizers.Lowercase().normalize_str, ALL)
    spaces, punctuation = split_classes(ALL)
    stable = [code for code in ALL if decomposed[code] == chr(code)]
    stripped = each(bert(strip_accents=True), stable)
    classes = combining_classes(stable)
    flags: dict[int, set[str]] = {code: set() for code in ALL}
    lower: dict[int, int] = {}
    for code in ALL:
        character, bits = chr(code), flags[code]
        assert cleaned[code] in ("", " ", character)
        bits |= {"CONTROL"} if cleaned[code] == "" else set()
        bits |= {"SPACE"} if code in spaces else set()
        assert (cleaned[code] == " ") == (code in spaces and cleaned[code] != "")
        bits |= {"PUNCTUATION"} if code in punctuation else set()
        assert chinese[code] in (character, f" {character} ")
        bits |= {"CHINESE"} if chinese[code] != character else set()
        if decomposed[code] != character:
            if code in HANGUL:
                assert decomposed[code] == _jamo(code), hex(code)
            else:
                bits.add("DECOMPOSED")
        else:
            assert stripped[code] in ("", character)
            bits |= {"MARK"} if stripped[code] == "" else set()
            bits |= {"REORDERED"} if code in classes else set()
        if lowered[code] != character:
            bits.add("LOWERED")
            assert len(lowered[code]) == 1 or (code == DOTTED_I and lowered[code] == "i\u0307")
            lower[code] = ord(lowered[code][0]) - code
    parts = {code: decomposed[code] for code in ALL if "DECOMPOSED" in flags[code]}
    combining = {code: number for code, number in classes.items() if "MARK" not in flags[code]}
    return {"flags": flags, "lower": lower, "parts": parts, "combining": combining}  # type: ignore[dict-item]


def _jamo(code: int) -> str:
    """Return the decomposition of a Hangul syllable. Source: The Unicode Standard, section 3.12."""
    index = code - HANGUL.start
    last = index % 28
    return chr(0x1100 + index // 588) + chr(0x1161 + index % 588 // 28) + (chr(0x11A7 + last) if last else "")


def _numbers(values: Iterable[object]) -> str:
    lines, line = [], "   "
    for value in values:
        text = f" {value},"
        if len(line) + len(text) > WIDTH:
            lines.append(line)
            line = "   "
        line += text
    return "\n".join([*lines, line])


def _array(kind: str, name: str, values: Sequence[object], comment: str) -> str:
    return f"// {comment}\nconstexpr {kind} {name}[{len(values)}] = {{\n{_numbers(values)}\n}};\n"


def header() -> str:
    """Return the header's text."""
    characters = table()
    flags, lower, parts, combining = (characters[name] for name in ("flags", "lower", "parts", "combining"))
    kinds: dict[tuple[int, int], int] = {(0, 0): 0}
    blocks: dict[tuple[int, ...], int] = {}
    pages = []
    for start in range(0, 0x110000, BLOCK):
        block = []
        for code in range(start, start + BLOCK):
            bits = sum(1 << FLAGS.index(flag) for flag in flags.get(code, ()))  # type: ignore[attr-defined]
            block.append(kinds.setdefault((bits, int(lower.get(code, 0))), len(kinds)))  # type: ignore[call-overload]
        pages.append(blocks.setdefault(tuple(block), len(blocks)))
    assert len(kinds) <= 256
    keys = sorted(parts)
    starts = list(itertools.accumulate((len(str(parts[code])) for code in keys), initial=0))
    names = ", ".join(f"{name} = {1 << bit}" for bit, name in enumerate(FLAGS))
    return "\n".join(
        [
            f"// Made by tests/native/unicode_tables.py of tokenizers {TOKENIZERS}, which see for the versions of Unicode.",
            "// What BERT's tokenizer does with each character.",
            "#pragma once\n\n#include <cstdint>\n\nnamespace sbmini::unicode {\n",
            f"enum Flag : uint16_t {{ {names} }};\n",
            "struct Kind {\n    uint16_t flags;\n    int32_t lower;  // the difference to the lower case\n};\n",
            _array("Kind", "KINDS", [f"{{{bits}, {change}}}" for bits, change in kinds], "The kinds of characters."),
            _array(
                "uint16_t", "PAGES", pages, f"For each {BLOCK} characters, the number of their block, of {len(blocks)}."
            ),
            _array("uint8_t", "BLOCKS", list(itertools.chain(*blocks)), "The kinds of a block's characters."),
            _array(
                "uint32_t", "DECOMPOSING", keys, "The characters that decompose, without Hangul syllables, ascending."
            ),
            _array("uint16_t", "PART_STARTS", starts, "Where the parts of each begin, and where the last ones end."),
            _array(
                "uint32_t", "PARTS", [ord(part) for code in keys for part in str(parts[code])], "The parts, by NFD."
            ),
            _array(
                "uint32_t", "COMBINING", sorted(combining), "Characters that NFD reorders and that stay, ascending."
            ),
            _array(
                "uint8_t",
                "COMBINING_CLASSES",
                [combining[code] for code in sorted(combining)],
                "Their combining classes.",
            ),
            f"constexpr int BLOCK = {BLOCK};",
            f"constexpr uint32_t DOTTED_I = {DOTTED_I};  // the one character with two in lower case: i and U+0307",
            "constexpr int LONGEST_PARTS = " + str(max(len(str(parts[code])) for code in keys)) + ";\n",
            "}  // namespace sbmini::unicode\n",
        ]
    )


if __name__ == "__main__":
    assert tokenizers.__version__ == TOKENIZERS, f"this is tokenizers {tokenizers.__version__}, not {TOKENIZERS}"
    HEADER.write_text(header(), "utf-8")
    print(f"{HEADER}: {HEADER.stat().st_size:,} bytes")
