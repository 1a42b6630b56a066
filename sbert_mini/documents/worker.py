"""The child process that extracts texts: it reads requests on standard input and answers on standard output.

A request is a line of JSON, {"format", "bytes"}, and so many bytes: the document. An answer is a line of JSON, {"bytes"}, and so
many bytes of JSON: {"text", "unit", "places", "problem"}. Its memory is limited and it cannot write files, where the
system can do that (`files.system.limit_process`), and it ends with its parent.
"""

import json
import sys
from collections.abc import Callable
from typing import IO, Any

from sbert_mini.documents.extraction import MOST_CHARACTERS, Extracted
from sbert_mini.documents.html_text import extract_html
from sbert_mini.documents.office_text import extract_docx, extract_pdf
from sbert_mini.files import system

MEMORY_BYTES = 500 << 20
"""Address space of the process."""
_EXTRACTORS: dict[str, Callable[[bytes], Extracted]] = {
    "html": lambda data: extract_html(data.decode("utf-8", "surrogatepass")),
    "pdf": extract_pdf,
    "docx": extract_docx,
}
MISSING = "missing package "


def answer(format: str, data: bytes) -> Extracted:
    """Return what is extracted of a document, or why nothing is."""
    try:
        extracted = _EXTRACTORS[format](data)
    except MemoryError:
        return Extracted("", problem=f"reading it takes more than {MEMORY_BYTES >> 20} MB of memory")
    except ModuleNotFoundError as error:
        return Extracted("", problem=f"{MISSING}{error.name}")
    except RecursionError:
        return Extracted("", problem="its parts are nested too deeply")
    except Exception as error:
        lines = " ".join(str(error).split())[:200]
        return Extracted("", problem=f"it cannot be read ({type(error).__name__}{': ' if lines else ''}{lines})")
    if len(extracted.text) > MOST_CHARACTERS:
        return Extracted("", problem=f"its text is longer than {MOST_CHARACTERS:,} characters")
    return extracted


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    while line := requests.readline():
        request = json.loads(line)
        reply: dict[str, Any] = vars(answer(request["format"], requests.read(request["bytes"])))
        body = json.dumps(reply).encode()
        answers.write(json.dumps({"bytes": len(body)}).encode() + b"\n" + body)
        answers.flush()


def main() -> None:
    """Run the process."""
    system.limit_process(MEMORY_BYTES)
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
