"""A folder that holds one report: the results' JSON, pictures, a Markdown page and a self-contained HTML page.

Each result that is written into the folder joins those that lie there: `sbmini bench sts --report DIR`,
`sbmini bench speed --report DIR` and `sbmini train --report DIR` make one page together.
"""

import base64
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sbert_mini.errors import InputError, UsageError
from sbert_mini.evaluation import figures
from sbert_mini.evaluation.sections import sections
from sbert_mini.evaluation.sts import StsResult
from sbert_mini.evaluation.tables import TABLES, machine_note
from sbert_mini.files.durable import write_durably
from sbert_mini.files.json_files import ANY_OBJECT
from sbert_mini.files.json_schema import read_json
from sbert_mini.text.markdown import no_markup, plain

TITLES = {
    "sts": "Quality: semantic textual similarity",
    "speed": "Speed",
    "search": "Search and retrieval",
    "own_data": "Search on your own queries",
    "pairs": "The most similar pair: SentenceBERT's headline",
    "audit": "Audit: associations and hubness",
    "training": "Training",
}
_PAGES = {"report.md": "# sbert-mini: report", "report.html": "<title>sbert-mini: report</title>"}
"""The pages, and what stands at the beginning of each."""
_PICTURE = re.compile(r"(sts|sts-.+|speed|search|pairs|training-\w+|confusion-.+|scores-.+|histogram-.+)\.png")
_STYLE = """
:root{color-scheme:light dark;--text:#222;--soft:#555;--line:#ddd;--back:#fff;--card:#f6f7f9;--link:#2a5a8c}
@media (prefers-color-scheme:dark){:root{--text:#e4e4e4;--soft:#aaa;--line:#3a3f45;--back:#16181b;--card:#1f2226;--link:#8ab8e6}
img{filter:invert(.9) hue-rotate(180deg)}}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{font:16px/1.55 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:var(--text);background:var(--back)}
h1{font-size:1.6rem;line-height:1.2}h2{margin-top:2.5rem;border-bottom:1px solid var(--line);padding-bottom:.3rem}
h3{margin:1.6rem 0 .4rem;overflow-wrap:anywhere}a{color:var(--link)}
nav{background:var(--card);border-radius:.4rem;padding:.8rem 1rem;margin:1rem 0}nav ul{margin:.2rem 0;padding-left:1.2rem}
.wide{overflow-x:auto;max-width:100%}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.88rem}
th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}
th{border-bottom:2px solid var(--soft);vertical-align:bottom}th:first-child,td:first-child{text-align:left}
.texts th,.texts td{text-align:left}.texts td:first-child{min-width:14rem;max-width:44rem;overflow-wrap:anywhere}
.note{color:var(--soft);font-size:.85rem;margin:.3rem 0;overflow-wrap:anywhere}
figure{margin:1rem 0}img{display:block;max-width:100%;height:auto;background:#fff}
figcaption{color:var(--soft);font-size:.88rem;max-width:44rem;margin-top:.3rem}
@media (max-width:40rem){body{margin:1rem auto;padding:0 .7rem}h1{font-size:1.35rem}th,td{padding:.25rem .45rem}}
@media print{:root{color-scheme:light;--text:#000;--soft:#333;--line:#bbb;--back:#fff;--card:#fff;--link:#000}img{filter:none}
body{font-size:10pt;margin:0;max-width:none;padding:0}nav{border:1px solid #bbb}.wide{overflow:visible}table{font-size:8pt}
h2,h3{break-after:avoid}figure,tr{break-inside:avoid}}
"""


def pictures(kind: str, result: Mapping[str, Any], measured: StsResult | None = None) -> dict[str, bytes]:
    """Return the pictures of a result: file name -> PNG.

    Args:
        kind: `sts`, `speed`, `search`, `own_data`, `pairs`, `audit` or `training`.
        result: the result as its JSON holds it.
        measured: for `sts`, the result itself, for the scatter plots.
    """
    if kind == "sts":
        files = {"sts.png": figures.sts_bars(result)}
        for name, gold in measured.gold.items() if measured else ():
            cosines = {label: values[name] for label, values in measured.similarities.items()} if measured else {}
            files[f"sts-{name}.png"] = figures.scatter(name, gold, cosines)
        return files
    if kind == "speed":
        return {"speed.png": figures.throughput(result)}
    if kind == "search":
        return {"search.png": figures.recall_and_rate(result)} if result["kinds"] else {}
    if kind in ("own_data", "audit"):
        return {}
    if kind == "training":
        return figures.training(result)
    return {"pairs.png": figures.growth(result)}


def write_report(folder: Path, kind: str, result: Mapping[str, Any], measured: StsResult | None = None) -> Path:
    """Write a result into a report folder, make the pages anew, and return the HTML page's path.

    Args:
        folder: made if absent; other files in it are left alone.
        kind: as in `pictures`.
        result: the result as its JSON holds it, with `command` and `machine`.
        measured: as in `pictures`.

    Raises:
        InputError: another result in the folder cannot be read.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in _pictures_of(_record_in(folder / f"{kind}.json")):
        (folder / stale).unlink(missing_ok=True)
    drawn = pictures(kind, result, measured)
    for name, data in drawn.items():
        write_durably(folder / name, data)
    result = {**result, "pictures": list(drawn)}
    # the command line may hold bytes that are not UTF-8
    document = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    write_durably(folder / f"{kind}.json", document.encode(errors="backslashreplace"))
    results = {name: result_there for name in TABLES if (result_there := _record_in(folder / f"{name}.json"))}
    try:
        text, markup = _markdown(results), _html(folder, results)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"one of {', '.join(f'{name}.json' for name in results)} in {folder} is no result of this version: delete it, or "
            "name another folder"
        ) from error
    page = folder / "report.html"
    write_durably(folder / "report.md", text.encode(errors="backslashreplace"))
    write_durably(page, markup.encode(errors="backslashreplace"))
    return page


def check_folder(folder: Path) -> None:
    """Refuse a report folder that cannot be used, before anything slow is done.

    Raises:
        UsageError: it is a file, or holds a file under the name of one of ours that is none of ours, which would be overwritten.
        MissingExtraError: matplotlib is not installed.
        InputError: a result in it cannot be read.
    """
    figures.require()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"the report folder {folder} is a file")
    ours: set[str] = set()
    for name in TABLES:
        record = _record_in(folder / f"{name}.json")
        if record and not {"command", "machine"} <= set(record):
            raise _in_the_way(folder / f"{name}.json")
        ours.update(_pictures_of(record))
    for page, start in _PAGES.items():
        if (folder / page).exists() and start not in _beginning(folder / page):
            raise _in_the_way(folder / page)
    if any((folder / page).exists() for page in _PAGES):  # a report of ours: its pictures are too
        return
    for picture in folder.glob("*.png"):
        if picture.name not in ours and _PICTURE.fullmatch(picture.name):
            raise _in_the_way(picture)


def _in_the_way(file: Path) -> UsageError:
    return UsageError(
        f"{file} is no file of a report, and would be overwritten: name another report folder, or move it"
    )


def _beginning(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(400)
    except OSError:
        return ""


def _record_in(file: Path) -> dict[str, Any]:
    """Return the result in a file; empty where there is none."""
    if not file.is_file():
        return {}
    try:
        return dict(read_json(file, ANY_OBJECT, InputError))
    except InputError as error:
        raise InputError(f"{error}; delete it, or name another folder") from error


def _pictures_of(result: Mapping[str, Any]) -> list[str]:
    names = result.get("pictures")
    strings = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return [name for name in strings if name == Path(name).name and name.endswith(".png")]


def _markdown(results: Mapping[str, Any]) -> str:
    parts = ["# sbert-mini: report"]
    for kind, result in results.items():
        parts.append(f"## {TITLES[kind]}")
        for section in sections(kind, TITLES[kind], result, _pictures_of(result)):
            level = "###"
            if section.title != TITLES[kind]:
                parts.append(f"### {section.title}")
                level = "####"
            parts += [no_markup(text) for text in section.words]
            for table in section.tables:
                parts += [f"{level} {plain(table.title)}", table.markdown()]
            for name, caption in section.pictures:
                parts += [f"![{plain(Path(name).stem)}]({quote(name)})", no_markup(caption)]
        parts.append(no_markup(machine_note(result)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _html(folder: Path, results: Mapping[str, Any]) -> str:
    contents, parts = [], []
    for kind, result in results.items():
        found = sections(kind, TITLES[kind], result, _pictures_of(result))
        for section in found:
            anchor = f"{kind}-{found.index(section) + 1}"
            contents.append(f'<li><a href="#{anchor}">{html.escape(section.title)}</a></li>')
            parts.append(f'<section id="{anchor}"><h2>{html.escape(section.title)}</h2>')
            parts += [f"<p>{html.escape(text)}</p>" for text in section.words]
            parts += [table.html() for table in section.tables]
            parts += [_figure(folder / name, caption) for name, caption in section.pictures]
            parts.append("</section>")
        parts.append(f"<p class=note>{html.escape(machine_note(result).replace('`', ''))}</p>")
    body = "\n".join(
        ["<h1>sbert-mini: report</h1>", f'<nav aria-label="Contents"><ul>{"".join(contents)}</ul></nav>', *parts]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>sbert-mini: report</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _figure(file: Path, caption: str) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    name = html.escape(file.stem)
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{name}" src="data:image/png;base64,{data}">{below}</figure>'
