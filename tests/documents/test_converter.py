"""HTML, PDF and DOCX, read in a child process."""

import json
import os
import subprocess
import sys
import time

import pytest
from documents.made import image_pdf, text_docx, text_pdf
from hypothesis import given
from hypothesis import strategies as st

from sbert_mini.documents import converter
from sbert_mini.documents.converter import ConversionError, Converter
from sbert_mini.documents.html_text import extract_html
from sbert_mini.documents.worker import answer


@pytest.fixture(scope="module")
def shared():
    with Converter() as opened:
        yield opened


PIECES = ("<p>", "</p>", "<h1>", "</pre>", "<pre>", "a", " ", "&amp;", "<script>", "</script>", "<", "<!--", "-->")
PAGE = """<!doctype html>
<html><head><title>Site</title><style>p { color: red }</style></head>
<body>
<script>let a = "<p>no</p>";</script>
<h1>Bread &amp; butter</h1>
<p>It is <b>good</b>
when fresh.</p>
<ul><li>one<li>two</ul>
<h2>Keep
 it</h2><pre>
a
  b</pre>
<table><tr><td>1</td><td>2</td></tr></table>
<p># no heading</p>
</body></html>
"""


def test_html_by_hand(shared):
    extracted = shared.extract("html", PAGE.encode())
    assert extracted.text.split("\n\n") == [
        "# Bread & butter",
        "It is good when fresh.",
        "- one",
        "- two",
        "## Keep it",
        "```\na\n  b\n```",
        "1 | 2",
        "\\# no heading",
    ]
    lines = PAGE.splitlines()
    for start, line in extracted.places:
        first = extracted.text[start:].lstrip("#-\\`| \n").split()[0]
        assert first.split("&")[0] in lines[line - 1]


def test_a_title_stands_for_a_missing_h1(shared):
    extracted = shared.extract("html", b"<title>T</title>\n<p>x")
    assert (extracted.text, extracted.places) == ("# T\n\nx", [(0, 2)])


@given(st.lists(st.sampled_from(PIECES)))
def test_any_html_gives_text_whose_places_ascend(pieces):
    extracted = extract_html("".join(pieces))
    starts = [start for start, _ in extracted.places]
    assert starts == sorted(set(starts))
    assert all(start <= len(extracted.text) for start in starts)


def test_pdf_pages(shared):
    extracted = shared.extract("pdf", text_pdf(["Hello first page", "", "Third page here"]))
    assert extracted.text == "Hello first page\n\nThird page here"
    assert (extracted.unit, extracted.places) == ("page", [(0, 1), (18, 3)])


def test_a_scanned_pdf_is_reported_as_such(shared):
    with pytest.raises(ConversionError, match="is scanned: 2 of its 2 pages"):
        shared.extract("pdf", image_pdf(2))


def test_docx(shared):
    extracted = shared.extract("docx", text_docx())
    assert extracted.text == "# Report\n\n## First part\n\nSome words.\n\na | b\nc | d\n\n\\# no heading"


@pytest.mark.parametrize("format", ["pdf", "docx"])
@pytest.mark.parametrize("data", [b"", b"junk", b"%PDF-1.7\n" + b"0" * 999, b"PK\3\4" + b"x" * 99])
def test_damaged_files_fail_with_a_line(shared, format, data):
    with pytest.raises(ConversionError, match="it cannot be read"):
        shared.extract(format, data)
    assert shared.extract("html", b"<p>still there").text == "still there"


def test_a_document_that_takes_too_long_ends_the_child_and_the_next_one_is_read():
    with Converter(time_s=0.5) as slow:
        slow.extract("html", b"<p>a")
        process = slow._process.pid
        os.kill(process, 19)  # it stands still
        started = time.monotonic()
        with pytest.raises(ConversionError, match=r"more than 0\.5 s"):
            slow.extract("html", b"<p>" + b"x" * 2_000_000)
        assert time.monotonic() - started < 20
        assert not os.path.exists(f"/proc/{process}")  # noqa: PTH110
        assert slow.extract("html", b"<p>next").text == "next"


def test_a_child_that_dies_is_an_error_of_its_document():
    with Converter() as opened:
        opened.extract("html", b"<p>a")
        opened._process.kill()
        with pytest.raises(ConversionError, match="ended with -9"):
            opened.extract("html", b"<p>b")
        assert opened.extract("html", b"<p>c").text == "c"


def test_memory_is_limited():
    data = json.dumps({"format": "html", "bytes": 1 << 40}).encode() + b"\n"
    done = subprocess.run([sys.executable, "-P", "-m", "sbert_mini.documents.worker"], input=data, capture_output=True)
    assert done.returncode == 1
    assert b"MemoryError" in done.stderr


def test_the_worker_says_which_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdf", None)
    assert answer("pdf", b"").problem.startswith("missing package")


def test_one_process_serves_some_documents(monkeypatch):
    monkeypatch.setattr(converter, "_DOCUMENTS", 2)
    with Converter() as opened:
        processes = {(opened.extract("html", b"<p>a").text, opened._process.pid)[1] for _ in range(5)}
    assert len(processes) == 3
