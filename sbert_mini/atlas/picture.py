"""A map as a picture, PNG or SVG. matplotlib, without a display."""

import io
import logging
from collections.abc import Sequence

import numpy as np

from sbert_mini.errors import MissingExtraError
from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.text.shown import shown_in_line

INCHES, DPI = 10.0, 150
Box = tuple[float, float, float, float]
"""left, bottom, right, top."""


def picture(
    kind: str,
    title: str,
    positions: FloatArray,
    numbers: IntArray,
    labels: Sequence[tuple[int, str]],
    columns: int = 26,
) -> bytes:
    """Return a PNG or SVG: points coloured by group, and the names of groups, as many as fit without overlap.

    Args:
        kind: `png` or `svg`; points of an SVG are one image in it.
        title: what is drawn.
        positions: of the rows.
        numbers: their groups; -1 for none.
        labels: a group's number and name, the most important first.
        columns: the most characters of a name.

    Shapes: positions: (rows, 2); numbers: (rows,).

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of its own cache where HOME cannot be written
    try:
        from matplotlib import patheffects, rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("drawing a picture", "matplotlib", "map") from error
    figure = Figure(figsize=(INCHES, INCHES))
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.92))
    axes.set_axis_off()
    axes.set_aspect("equal", adjustable="datalim")
    figure.suptitle(shown_in_line(title), fontsize=12, parse_math=False)
    rows = len(positions)
    axes.scatter(
        positions[:, 0],
        positions[:, 1],
        s=float(np.clip(12000 / max(rows, 1), 1.2, 30)),
        c=_colors(numbers),
        linewidths=0,
        alpha=0.55 if rows > 5000 else 0.8,
        rasterized=True,
    )
    halo: list[patheffects.AbstractPathEffect] = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    names = [name if len(name) <= columns else name[: columns - 1] + "…" for _, name in labels]
    middles = [np.median(positions[numbers == group], axis=0) for group, _ in labels]
    drawn = [
        axes.text(x, y, shown_in_line(name), fontsize=8, ha="center", va="center")
        for (x, y), name in zip(middles, names, strict=True)
    ]
    for text in drawn:
        text.set_parse_math(False)
        text.set_path_effects(halo)
    canvas.draw()
    boxes = [text.get_window_extent().padded(3).extents for text in drawn]
    for text, kept in zip(drawn, without_overlap([tuple(map(float, box)) for box in boxes]), strict=True):  # type: ignore[misc]
        text.set_visible(kept)
    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "map"}):
        figure.savefig(stream, format=kind, dpi=DPI, metadata={"Software": None} if kind == "png" else {"Date": None})
    return stream.getvalue()


def without_overlap(boxes: Sequence[Box]) -> list[bool]:
    """Return which boxes are kept, so that none overlaps another: of two that do, the earlier one."""
    kept: list[Box] = []
    result = []
    for box in boxes:
        free = not any(box[0] < k[2] and k[0] < box[2] and box[1] < k[3] and k[1] < box[3] for k in kept)
        result.append(free)
        if free:
            kept.append(box)
    return result


def _colors(numbers: IntArray) -> AnyArray:
    from matplotlib.colors import hsv_to_rgb

    count = int(numbers.max(initial=-1)) + 1
    hues = (np.arange(count) * 137.508 + 210) % 360 / 360
    palette = hsv_to_rgb(
        np.stack([hues, np.full(count, 0.7), 0.62 + np.arange(count) % 3 * 0.1], axis=1).reshape(-1, 3)
    )
    return np.concatenate([palette, [[0.7, 0.72, 0.75]]])[numbers]
