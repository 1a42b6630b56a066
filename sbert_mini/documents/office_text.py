"""PDF and DOCX -> text. Runs in a child process, because the libraries that read them may take any time and memory."""

import io
import logging
from typing import Any

from sbert_mini.documents.extraction import Extracted, TextBuilder

_FEW_CHARACTERS = 3


def extract_pdf(data: bytes) -> Extracted:
    """Return the text of a PDF, page by page; a PDF of images alone has none, and the problem says so.

    Args:
        data: the file.
    """
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        return Extracted("", problem="the PDF is encrypted, and needs a password")
    built = TextBuilder("page")
    images = pages = 0
    for number, page in enumerate(reader.pages, start=1):
        pages += 1
        text = page.extract_text().replace("\0", "").strip()
        if len(text) >= _FEW_CHARACTERS:
            built.add(text, number)
        elif _has_image(page):
            images += 1
    extracted = built.extracted()
    if not extracted.text and images:
        extracted.problem = (
            f"the PDF is scanned: {images} of its {pages} pages are images without text; recognize it first (OCR)"
        )
    return extracted


def _has_image(page: Any) -> bool:
    resources = page.get("/Resources")
    objects = None if resources is None else resources.get_object().get("/XObject")
    if objects is None:
        return False
    return any(item.get_object().get("/Subtype") in ("/Image", "/Form") for item in objects.get_object().values())


def extract_docx(data: bytes) -> Extracted:
    """Return the text of a DOCX, with Markdown's headings; the rows of tables are lines.

    Args:
        data: the file.
    """
    from docx import Document
    from docx.table import Table

    built = TextBuilder(None)
    for item in Document(io.BytesIO(data)).iter_inner_content():
        if isinstance(item, Table):
            rows = [" | ".join(" ".join(cell.text.split()) for cell in row.cells) for row in item.rows]
            text = "\n".join(row for row in rows if row.strip(" |"))
        else:
            text = item.text.strip()
            style = (item.style.name if item.style is not None else None) or ""
            level = (
                1 if style == "Title" else int(style[8:]) if style.startswith("Heading ") and style[8:].isdigit() else 0
            )
            if text and level:
                text = f"{'#' * min(level, 6)} {' '.join(text.split())}"
            elif text.startswith(("#", "```", "~~~")):
                text = f"\\{text}"
        if text:
            built.add(text)
    return built.extracted()
