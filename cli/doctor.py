"""`sbmini doctor`: what is installed here, what computes, and whether what was asked for works."""

from typing import Annotated, Any

import typer

from sbert_mini.errors import SbertMiniError

from . import options
from .amounts import amount, size
from .describing import print_lines
from .printing import print_json

EXAMPLE = """Examples:

  sbmini doctor

  sbmini doctor -m ./my-model --json
"""


def doctor(
    model: options.Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object; the errors stand in `problems`.")] = False,
) -> None:
    """Show what is installed and what computes, on one screen, and try the model on a text.

    Exit code 1 where a model, a backend or a folder that was asked for (by -m or the environment) does not work. Nothing is
    fetched or converted. Add the output to a report of a problem.
    """
    from sbert_mini.runtime.doctor import examine, said

    found = examine(model)
    if as_json:
        print_json(found)
    else:
        print_lines(_lines(found))
    if found["problems"]:
        raise SbertMiniError(said(found["problems"]))


def _lines(found: dict[str, Any]) -> list[tuple[str, str | list[str]]]:
    processor, native = found["processor"], found["native"]
    packages = [f"{name} {version or 'is missing'}" for name, version in found["packages"].items()]
    features = f" ({' '.join(processor['features'])})" if processor["features"] else ""
    variables = [f"{name}={value}" for name, value in found["variables"].items()]
    present = [extra["name"] for extra in found["extras"] if not extra["missing"]]
    absent = [f"{e['name']} lacks {', '.join(e['missing'])}: {e['command']}" for e in found["extras"] if e["missing"]]
    models = [f"{m['name']}: {m['path'] or 'not installed: ' + m['command']}" for m in found["models"]]
    caches = [f"{c['name']}: {c['path'] or 'no home directory'}, {size(c['bytes'])}" for c in found["caches"]]
    places = [
        f"{place['name']} ({place['path'] or 'none'}): {'yes' if place['writable'] else 'no'}"
        for place in found["places"]
    ]
    return [
        ("sbert-mini", f"{found['version']}, Python {found['python']} ({found['executable']})"),
        ("system", found["system"]),
        (
            "packages",
            [", ".join(packages[i : i + 5]) for i in range(0, len(packages), 5)] or "unknown: not installed by pip",
        ),
        ("processor", f"{processor['name']}, {amount(processor['cores'], 'core')}{features}"),
        ("native code", f"{native['level'] or 'none'}: {native['reason']}"),
        ("threads", str(found["threads"] or "invalid")),
        ("variables", ", ".join(variables) or "none that change what computes"),
        ("model", _model(found["model"])),
        ("built in", models),
        ("extras", [", ".join(present) or "none", *absent]),
        ("network", found["network"]),
        ("telemetry", found["telemetry"]),
        ("caches", caches),
        ("can be written", places),
    ]


def _model(model: dict[str, Any]) -> str:
    if model["backend"] is not None:
        return f"{model['name']} works, computed by {model['backend']}"
    return f"{model['name']}: {model['note']}" if model["works"] is not False else f"{model['name']} does not work"
