"""HTML -> text with Markdown's headings, and where each part of the text stands in the file. Runs in a child process."""

from html.parser import HTMLParser

from sbert_mini.documents.extraction import Extracted, TextBuilder

_HIDDEN_TAGS = "script style noscript template svg math iframe object head select datalist"
_HIDDEN = frozenset(_HIDDEN_TAGS.split())
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS_TAGS = (
    "address article aside blockquote body br caption center dd details dialog div dl dt fieldset figcaption "
    "figure footer form header hr html legend li main nav ol optgroup option p pre section summary table tbody "
    "tfoot thead tr ul"
)
_BLOCKS = frozenset(_BLOCKS_TAGS.split())


def extract_html(text: str) -> Extracted:
    """Return the readable text of an HTML document.

    Paragraphs are separated by blank lines. Headings begin with # as in Markdown, and preformatted text stands between fences.
    The title is the first heading where the document has no `h1`.

    Args:
        text: the document.
    """
    parser = _Reader()
    parser.feed(text)
    parser.close()
    parser.end_block()
    return parser.result()


class _Reader(HTMLParser):
    """Collects the blocks of a document."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._built = TextBuilder("line")
        self._words: list[str] = []
        self._line = 0
        self._hidden: list[str] = []
        self._heading = 0
        self._in_pre = self._in_title = self._has_h1 = False
        self._before = ""
        self._title: list[str] = []

    def result(self) -> Extracted:
        """Return what was read."""
        title = " ".join("".join(self._title).split())
        return self._built.extracted("" if self._has_h1 or not title else f"# {title}\n\n")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        """Take a start tag."""
        self._in_title = tag == "title" and "svg" not in self._hidden
        if tag in _HIDDEN:
            self.end_block()
            self._hidden.append(tag)
        elif tag == "body":
            self._hidden.clear()  # an unclosed head
        elif tag in _HEADINGS:
            self.end_block()
            self._heading = _HEADINGS[tag]
            self._has_h1 = self._has_h1 or tag == "h1"
        elif tag in ("td", "th"):
            self._words.append(" | " if self._words else "")
        elif tag in _BLOCKS:
            self.end_block()
            self._before = "- " if tag == "li" else ""
            self._in_pre = tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        """Take an end tag."""
        self._in_title = False
        if tag in _HIDDEN:
            self.end_block()
            if tag in self._hidden:
                del self._hidden[self._hidden.index(tag) :]
        elif tag in _HEADINGS or tag in _BLOCKS:
            self.end_block()
            self._heading, self._in_pre = 0, self._in_pre and tag != "pre"

    def handle_data(self, data: str) -> None:
        """Take some text."""
        if self._in_title and len(self._title) < 100:
            self._title.append(data)
        if self._hidden or self._in_title:
            return
        if not self._words and data.strip():
            self._line = self.getpos()[0] + (len(data) - len(data.lstrip()) and data[: -len(data.lstrip())].count("\n"))
        if self._words or data.strip():
            self._words.append(data)

    def end_block(self) -> None:
        """End the block of text that is read."""
        content = "".join(self._words)
        self._words.clear()
        text = content.strip("\r\n").rstrip() if self._in_pre else " ".join(content.split())
        if not text:
            return
        if self._in_pre:
            fence = "`" * 3
            while fence in text:
                fence += "`"
            text = f"{fence}\n{text}\n{fence}"
        elif self._heading:
            text = f"{'#' * self._heading} {text}"
        elif text.startswith(("#", "```", "~~~")):
            text = f"\\{text}"
        self._built.add(self._before + text, self._line)
        self._before = ""
