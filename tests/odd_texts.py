"""Texts that find faults in a tokenizer, made of a seed: marks, scripts that grow or shrink, controls, emoji, very long words."""

import random
import unicodedata
from collections.abc import Iterator

# Letters of several alphabets, CJK (also of the later planes, and compatibility ideographs), all kinds of blanks, punctuation and
# ASCII symbols, combining marks of three kinds (removed and not, of class 0 and not), control, format and private-use
# characters, characters that decompose into punctuation, that grow when they are lower-cased, and unassigned ones.
ODD = "aB1é漢汉\U00020000\U0002f800豈かなд한ไทยאב .,$`~_-—“”·\t\n\r\u00a0\u1680\u2003\u2028\u3000\x85\x1c"
ODD += "\u0301\u0338\u0345\u0900\u0903\u093c\u1b44\u302e\u200b\u200d\u00ad\x00\x07\ufffd\ue000\u0378≠\u037e\u1fefİẞǅ№🎉🫠\ufe0f"
MARKS = "".join(chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) in ("Mn", "Mc", "Me"))
KEPT_MARKS = (
    "\u08d4\u1b44\u1baa\u1bab\u1dfb\u302e\u302f\ua9c0\U00011442\U0001d165\U0001d166\U0001d16d\U0001e000\U0001e01b"
)
"""Marks that have a combining class and are not removed: NFD sorts them."""
_WORDS = """
the cat café naïve Dvořák EMBEDDING unbelievably internationalization playing 1984 3.14 don't ÅNGSTRÖM straße ΣΊΣΥΦΟΣ
Привет हिन्दी 안녕하세요 日本語 中文 ไทย العربية שָׁלוֹם tiếng Việt [SEP] [CLS] [MASK] [UNK] [PAD] ##ing 🎉🫠 👩‍👩‍👧 x²
"""
WORDS = _WORDS.split()


def odd_texts(seed: int, count: int) -> Iterator[str]:
    """Yield texts; the same ones for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        yield "".join(_part(rng) for _ in range(rng.randrange(1, 9)))


def _part(rng: random.Random) -> str:
    kind = rng.randrange(10)
    if kind < 3:
        return rng.choice(WORDS) + rng.choice(("", " ", "-", ", "))
    if kind < 5:
        return "".join(rng.choices(ODD, k=rng.randrange(1, 8)))
    if kind == 5:
        return rng.choice("aeıDцか") + "".join(rng.choices(MARKS + KEPT_MARKS * 99, k=rng.randrange(1, 6)))
    if kind == 6:
        return "".join(_any(rng) for _ in range(rng.randrange(1, 5)))
    if kind == 7:
        return " ".join(rng.choice(("re", "un", "micro")) + word for word in rng.choices(WORDS, k=2)) + " "
    if kind == 8 and rng.random() < 0.3:
        return rng.choice(("x", "é", "e\u0301", "한", "Ab", "\U0001d165", "İ")) * rng.randrange(40, 130)
    return chr(rng.randrange(32, 127)) * rng.randrange(1, 4)


def _any(rng: random.Random) -> str:
    """Return any character, those of the first plane more often."""
    while (
        0xD800 <= (code := rng.choice((rng.randrange(0x250), rng.randrange(0x10000), rng.randrange(0x110000)))) < 0xE000
    ):
        pass
    return chr(code)
