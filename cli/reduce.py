"""`sbmini reduce`: vectors of fewer components, by PCA."""

from pathlib import Path
from typing import Annotated

import typer

from sbert_mini.errors import UsageError

from . import options
from .amounts import amount
from .notes import note, progress_wanted, quiet_notes

app = typer.Typer(help="Reduce vectors to their principal components.", no_args_is_help=True, rich_markup_mode=None)

VectorsFile = Annotated[Path, typer.Argument(help="A .npy file of vectors, (rows, dim).", show_default=False)]


@app.command(
    "fit",
    epilog="""Example:

  sbmini reduce fit vectors.npy -d 128 -o pca.safetensors
""",
)
def fit(
    vectors: VectorsFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="The reduction's file.", show_default=False)],
    dim: Annotated[int, typer.Option("--dim", "-d", min=1, help="Components to keep.", show_default=False)],
    whiten: Annotated[bool, typer.Option("--whiten", help="Scale each component to variance 1.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Random seed for drawing the sample.")] = 0,
    quiet: options.Quiet = False,
) -> None:
    """Fit a reduction on a file of vectors. It is fitted on a sample where there are more than 1,000 rows for
    each component of the vectors (384,000 rows of 384 components).
    """
    if output.suffix.lower() not in ("", ".safetensors"):
        raise UsageError(f"--output must end in .safetensors; found {output}")
    if (
        output.exists() and not output.is_file()
    ):  # a file takes its place in one step, which would remove a device or a pipe
        raise UsageError(f"--output must be a regular file, and {str(output)!r} is none")
    quiet_notes(quiet)
    from sbert_mini.runtime.npy import read_vectors
    from sbert_mini.search import reduction

    fitted = reduction.fit(read_vectors(vectors), dim, whiten=whiten, seed=seed)
    fitted.save(output)
    note(f"{fitted.dimension} components hold {fitted.explained:.1%} of the variance -> {output}")


@app.command(
    "apply",
    epilog="""Example:

  sbmini reduce apply pca.safetensors vectors.npy -o small.npy
""",
)
def apply(
    reduction: Annotated[Path, typer.Argument(help="The file that 'reduce fit' wrote.", show_default=False)],
    vectors: VectorsFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .npy file.", show_default=False)],
    normalize: Annotated[
        bool, typer.Option("--normalize/--no-normalize", help="Scale the reduced vectors to length 1.")
    ] = True,
    quiet: options.Quiet = False,
) -> None:
    """Reduce a file of vectors, block by block."""
    if output.suffix != ".npy":
        raise UsageError(f"--output must end in .npy; found {output}")
    if output.exists() and not output.is_file():
        raise UsageError(f"--output must be a regular file, and {str(output)!r} is none")
    quiet_notes(quiet)
    from contextlib import nullcontext

    from sbert_mini.progress import ProgressBar
    from sbert_mini.runtime.npy import NpyWriter, read_vectors
    from sbert_mini.search.reduction import Reduction

    fitted, rows = Reduction.load(reduction), read_vectors(vectors)
    with (
        ProgressBar("rows", len(rows)) if progress_wanted(quiet) else nullcontext() as bar,
        NpyWriter(output, fitted.dimension) as writer,
    ):
        for block in fitted.blocks(rows, normalize=normalize):
            writer.write(block)
            if bar is not None:
                bar.advance(len(block))
    note(f"{amount(len(rows), 'vector')} of {amount(fitted.dimension, 'component')} -> {output}")
