"""`sbmini models`: what models there are, and what is known of them."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from sbert_mini.errors import ModelNotFoundError, install_command

from . import options
from .amounts import amount
from .describing import print_lines
from .notes import note, quiet_notes
from .printing import print_json, print_text

if TYPE_CHECKING:
    from sbert_mini.model.layout import ModelLayout
    from sbert_mini.model.token_table import TableFile

app = typer.Typer(help="List, describe and convert models.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[
    str | None,
    typer.Argument(
        help="A model directory, a built-in name, or a hub id; by default the default model.", show_default=False
    ),
]


@app.command("list", epilog="Example:\n\n  sbmini models list\n")
def list_models() -> None:
    """List the built-in models: name, whether it is installed, description. The default is marked with *."""
    from sbert_mini.model import registry

    for name, model in registry.BUILTIN.items():
        try:
            where = str(registry.resolve(name))
        except ModelNotFoundError:
            where = f"not installed: {install_command(model.extra)}"
        mark = "*" if name == registry.default_name() else " "
        print_text(f"{mark} {name}\t{where}\t{model.description}")
    if registry.default_name() not in registry.BUILTIN:
        print_text(f"* {registry.default_name()}\t$SBMINI_MODEL\t")


@app.command("info", epilog="Example:\n\n  sbmini models info ./my-model --json\n")
def info(
    name: Name = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    offline: options.Offline = False,
) -> None:
    """Describe a model: sizes, maximum length, pooling, prompts, graphs, and what computes it here and why.

    Nothing is converted.
    """
    from sbert_mini.model import registry
    from sbert_mini.model.layout import graphs_folder, read_layout
    from sbert_mini.runtime.engine import describe_backend

    layout = read_layout(registry.resolve(name, offline=offline))
    if layout.table is not None:
        _print_static(layout, layout.table, as_json=as_json)
        return
    config = layout.config
    backend, reason = describe_backend(layout)
    graphs = sorted(file.name for file in graphs_folder(layout.path).glob("*.onnx"))
    description = {
        "path": str(layout.path),
        "dimension": layout.dimension,
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "heads": config.num_attention_heads,
        "vocabulary": config.vocab_size,
        "max_seq_length": layout.max_seq_length,
        "pooling": list(layout.pooling),
        "projections": [layer.out_features for layer in layout.dense],
        "normalizes": layout.normalize,
        "similarity": layout.similarity,
        "prompts": dict(layout.prompts),
        "graphs": graphs,
        "backend": backend,
        "backend_reason": reason,
    }
    if as_json:
        print_json(description)
        return
    prompts = [f"{name}: {json.dumps(text, ensure_ascii=False)}" for name, text in layout.prompts.items()]
    units = f"{config.hidden_size} units, {amount(config.num_attention_heads, 'head')}"
    lines: list[tuple[str, str | list[str]]] = [
        ("path", str(layout.path)),
        ("vectors", f"{amount(layout.dimension, 'component')}{', of length 1' if layout.normalize else ''}"),
        ("layers", f"{amount(config.num_hidden_layers, 'layer')} of {units}"),
        ("vocabulary", amount(config.vocab_size, "word piece")),
        ("reads", f"up to {amount(layout.max_seq_length, 'word piece')} of a text"),
        ("pooling", ", ".join(layout.pooling)),
        ("projections", ", ".join(f"to {layer.out_features}" for layer in layout.dense) or "none"),
        ("similarity", layout.similarity),
        ("prompts", prompts or "none"),
        ("graphs", ", ".join(graphs) or "none yet: made at the first use, or by 'sbmini models convert'"),
        ("computed by", f"{backend}: {reason}"),
    ]
    print_lines(lines)


def _print_static(layout: "ModelLayout", table: "TableFile", *, as_json: bool) -> None:
    """Describe a static model: a table of token vectors."""
    from sbert_mini.runtime.engine import describe_backend

    backend, reason = describe_backend(layout)
    bits = 4 if table.is_packed else 32
    description = {
        "path": str(layout.path),
        "dimension": layout.dimension,
        "layers": 0,
        "vocabulary": table.tokens,
        "bits": bits,
        "max_seq_length": layout.max_seq_length,
        "normalizes": layout.normalize,
        "similarity": layout.similarity,
        "prompts": dict(layout.prompts),
        "space": table.space,
        "backend": backend,
        "backend_reason": reason,
    }
    if as_json:
        print_json(description)
        return
    prompts = [f"{name}: {json.dumps(text, ensure_ascii=False)}" for name, text in layout.prompts.items()]
    print_lines(
        [
            ("path", str(layout.path)),
            ("vectors", f"{amount(layout.dimension, 'component')}{', of length 1' if layout.normalize else ''}"),
            ("layers", f"none: a static model, the sum of its tokens' vectors, which have {bits} bits a component"),
            ("vocabulary", amount(table.tokens, "word piece")),
            ("reads", f"up to {amount(layout.max_seq_length, 'word piece')} of a text"),
            ("similarity", layout.similarity),
            ("prompts", prompts or "none"),
            ("space", f"that of the model with the fingerprint {table.space[:12]}" if table.space else "its own"),
            ("computed by", f"{backend}: {reason}"),
        ]
    )


@app.command("convert", epilog="Example:\n\n  sbmini models convert ./my-model && scp -r my-model airgapped:\n")
def convert(
    name: Name = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a model's ONNX graphs now instead of at its first use, and print their paths."""
    quiet_notes(quiet)
    from sbert_mini.model import registry
    from sbert_mini.model.layout import GRAPH_FILES, read_layout
    from sbert_mini.runtime.graphs import find

    path = registry.resolve(name, offline=offline)
    if (table := read_layout(path).table) is not None:
        print_text(str(table.path))
        note(f"{path} is a static model: it needs no graph")
        return
    for graph in GRAPH_FILES:
        print_text(str(find(path, graph, trust_tokenizer=trust_tokenizer).file))
    note(f"{path} is ready for use without torch")
