"""Documents that the tests read, made by hand."""

import io
import zlib


def pdf(objects: list[bytes]) -> bytes:
    """Return a PDF of some objects, the first of which is the catalog."""
    out, starts = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, start=1):
        starts.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    for at in starts:
        out += f"{at:010d} 00000 n \n".encode()
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(out)


def stream(data: bytes, entries: str = "") -> bytes:
    return f"<< /Length {len(data)} {entries} >>\nstream\n".encode() + data + b"\nendstream"


def _pages(contents: list[bytes], resources: str, shared: list[bytes]) -> bytes:
    first = 3 + len(shared)
    kids = " ".join(f"{first + 2 * i} 0 R" for i in range(len(contents)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(contents)} >>".encode(),
        *shared,
    ]
    for i, content in enumerate(contents):
        page = f"/Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Contents {first + 2 * i + 1} 0 R"
        objects += [f"<< {page} /Resources << {resources} >> >>".encode(), stream(content)]
    return pdf(objects)


def text_pdf(pages: list[str]) -> bytes:
    """Return a PDF with a line of text a page."""
    contents = [f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode() if text else b"" for text in pages]
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    return _pages(contents, "/Font << /F1 3 0 R >>", [font])


def image_pdf(pages: int) -> bytes:
    """Return a PDF whose pages are images."""
    pixels = zlib.compress(bytes(4))
    entries = "/Type /XObject /Subtype /Image /Width 2 /Height 2 /ColorSpace /DeviceGray /BitsPerComponent 8 /Filter /FlateDecode"
    return _pages([b"q 300 0 0 300 0 0 cm /I Do Q"] * pages, "/XObject << /I 3 0 R >>", [stream(pixels, entries)])


def text_docx() -> bytes:
    """Return a DOCX with a title, a heading, a paragraph and a table."""
    from docx import Document

    document = Document()
    document.add_heading("Report", 0)
    document.add_heading("First part", 2)
    document.add_paragraph("Some words.")
    table = document.add_table(2, 2)
    for cell, text in zip((cell for row in table.rows for cell in row.cells), "abcd", strict=True):
        cell.text = text
    document.add_paragraph("# no heading")
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()
