"""Hooks of `make docs`: they add files outside docs/ to the site, and adapt the links to them.

In docs/ such a file is linked as `../ARCHITECTURE.md`, which works on a forge.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "ARCHITECTURE.md", "EXPERIMENTS.md", "CONTRIBUTING.md", "CHANGELOG.md")
FILES = ("benchmarks/results/ablations.png", "NOTICE")


def _target(name: str) -> str:
    """Return the path of a project file on the site. README.md gets another name: it would be a second index page."""
    return "start.md" if name == "README.md" else name.lower() if name in PAGES else f"files/{Path(name).name}"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and pictures outside docs/."""
    from mkdocs.structure.files import File

    for name in (*PAGES, *FILES):
        files.append(File.generated(config, _target(name), abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page's text with its links to project files turned into links within the site."""
    outside = page.file.src_uri in {_target(name) for name in PAGES}
    if outside:
        markdown = re.sub(r"\]\(docs/", "](", markdown)
    for name in (*PAGES, *FILES):
        markdown = markdown.replace(f"]({'' if outside else '../'}{name}", f"]({_target(name)}")
    return markdown
