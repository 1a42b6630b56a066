"""Groups in a file: their centres and names, so that later rows can be put into the same groups."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sbert_mini.atlas.clusters import assign, check_threshold
from sbert_mini.atlas.rows import Rows
from sbert_mini.cosine import unit_rows
from sbert_mini.errors import InputError, UsageError
from sbert_mini.files.durable import write_durably
from sbert_mini.files.json_files import GROUPS
from sbert_mini.files.json_schema import check, parse
from sbert_mini.files.reading import check_regular
from sbert_mini.shapes import FloatArray, IntArray

FORMAT = "sbert-mini groups"


@dataclass(frozen=True, eq=False)
class GroupFile:
    """Groups that later rows can join.

    Attributes:
        centres: of the groups, of length 1, (groups, dim).
        names: of the groups.
        threshold: the least cosine of a row and its group's centre.
        fingerprint: of the model that made the vectors; None where that was not known.
        prompt: put before each text.
    """

    centres: FloatArray
    names: tuple[str, ...]
    threshold: float
    fingerprint: str | None
    prompt: str

    def save(self, path: Path) -> None:
        """Write the groups to a safetensors file."""
        metadata = {
            "format": FORMAT,
            "names": list(self.names),
            "threshold": self.threshold,
            "fingerprint": self.fingerprint,
            "prompt": self.prompt,
        }
        centres = np.ascontiguousarray(self.centres, np.float32)
        write_durably(path, save({"centres": centres}, {"sbert_mini": json.dumps(metadata)}))

    @classmethod
    def load(cls, path: Path) -> "GroupFile":
        """Read what `save` wrote.

        Raises:
            InputError: it cannot be read, is something else, or is damaged.
        """
        try:
            with safe_open(str(check_regular(path)), "numpy") as file:
                metadata = parse((file.metadata() or {}).get("sbert_mini", "{}"), path, InputError)
                if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
                    raise InputError(f"{path} holds no groups: 'sbmini cluster --save NAME.safetensors' writes them")
                check(metadata, GROUPS, path, InputError)
                if "centres" not in file.keys():  # noqa: SIM118
                    raise InputError(f"{path} is damaged: it holds no tensor 'centres'")
                part = file.get_slice("centres")
                shape, kind = tuple(part.get_shape()), part.get_dtype()
                if len(shape) != 2 or shape[0] != len(metadata["names"]) or kind != "F32":
                    raise InputError(
                        f"{path} is damaged: its centres are {kind} of shape {shape}, not F32 with a row a name"
                    )
                centres = file.get_tensor("centres")
        except InputError:
            raise
        except (OSError, SafetensorError, ValueError) as error:
            raise InputError(f"{path} cannot be read as a file of groups: {error}") from error
        if not np.isfinite(centres).all():
            raise InputError(f"{path} is damaged: a centre holds NaN or infinity")
        if not (threshold := float(metadata["threshold"])):
            raise InputError(f"{path} is damaged: its threshold is 0")
        names, fingerprint = tuple(metadata["names"]), metadata.get("fingerprint")
        return cls(unit_rows(centres), names, threshold, fingerprint, metadata.get("prompt", ""))

    def assigned(self, rows: Rows, threshold: float | None = None) -> tuple[IntArray, FloatArray]:
        """Return the group of each row, -1 for none, and its cosine to the group's centre, 0 for none.

        Args:
            rows: the rows.
            threshold: the least cosine; None for the groups' own.

        Shapes: the results: (rows,) each.

        Raises:
            UsageError: the threshold is outside (0, 1].
            InputError: the rows' vectors are of another model, or have another number of components.
        """
        if self.fingerprint is not None and rows.fingerprint is not None and self.fingerprint != rows.fingerprint:
            raise InputError(
                f"the rows' vectors are of another model (fingerprint {rows.fingerprint[:12]}) than the groups' "
                f"({self.fingerprint[:12]})"
            )
        if self.centres.shape[1] != rows.vectors.shape[1]:
            raise InputError(
                f"the rows' vectors have {rows.vectors.shape[1]} components, and the groups' centres {self.centres.shape[1]}"
            )
        return assign(rows.vectors, self.centres, self.threshold if threshold is None else check_threshold(threshold))


def check_suffix(path: Path, option: str) -> None:
    """Refuse a name that is none of a file of groups.

    Raises:
        UsageError: it does not end in .safetensors.
    """
    if path.suffix.lower() != ".safetensors":
        raise UsageError(f"{option} must end in .safetensors; found {path}")
