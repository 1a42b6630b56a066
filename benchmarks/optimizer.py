"""The cost of an AdamW step at 22.7M parameters (all-MiniLM-L6-v2): ours against torch's foreach and fused ones.

"touched rows" has a sparse gradient of the word embeddings, as in the fitter: 1,000 rows a step out of 4,000 in all. "fused" is
ours with torch's fused kernel for the arithmetic.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks import harness
from sbert_mini.encoder.bert import MiniBert
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.measure import alternate, median_ratio, processor_timed, summary, timed
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.model.registry import resolve
from sbert_mini.training.adamw import AdamW


def parameters(*, sparse: bool = False) -> list[nn.Parameter]:
    """Return the model's parameters, with gradients."""
    torch.manual_seed(0)
    weights = list(MiniBert.from_pretrained(resolve(PEER_MODEL)).parameters())
    for parameter in weights:
        parameter.grad = torch.randn_like(parameter) * 1e-3
    if sparse:
        table = weights[0]
        rows = torch.randperm(4000)[:1000].sort().values
        table.grad = torch.sparse_coo_tensor(rows[None], torch.randn(1000, table.shape[1]), table.shape).coalesce()
    return weights


def tables(result: Json) -> list[Table]:
    """Return the table of what an optimizer step costs."""
    header = (
        f"a step over {result['parameters'] / 1e6:.1f}M parameters",
        "processor ms" if result.get("clock") == "processor" else "ms",
        "to foreach",
        "to fused",
    )
    rows = tuple(
        (name, f"{entry['ms']['median']:.1f}", f"{entry['to_foreach']:.2f}", f"{entry['to_fused']:.2f}")
        for name, entry in result["contestants"].items()
    )
    return [Table("The optimizer", header, rows)]


def main() -> None:
    parser = harness.parser(__doc__ or "", rounds=21)
    parser.add_argument(
        "--clock", choices=("wall", "processor"), default="wall", help="processor: on a machine that is in use"
    )
    options = parser.parse_args()
    clock = processor_timed if options.clock == "processor" else timed
    torch.set_num_threads(options.threads)
    optimizers: dict[str, torch.optim.Optimizer] = {
        "torch AdamW, foreach": torch.optim.AdamW(parameters(), lr=1e-5, foreach=True),
        "torch AdamW, fused": torch.optim.AdamW(parameters(), lr=1e-5, fused=True),
        "ours": AdamW(parameters(), lr=1e-5),
        "ours, touched rows": AdamW(parameters(sparse=True), lr=1e-5),
        "ours, fused": AdamW(parameters(), lr=1e-5, fused=True),
        "ours, fused, touched rows": AdamW(parameters(sparse=True), lr=1e-5, fused=True),
    }
    steps: dict[str, Callable[[], object]] = {name: optimizer.step for name, optimizer in optimizers.items()}
    for step in steps.values():
        step()
    seconds = alternate({name: partial(clock, step) for name, step in steps.items()}, options.rounds)
    base, fused = seconds["torch AdamW, foreach"], seconds["torch AdamW, fused"]
    result = {
        "rounds": options.rounds,
        "clock": options.clock,
        "parameters": sum(p.numel() for p in parameters()),
        "contestants": {
            name: {
                "ms": {key: 1000 * value for key, value in summary(values).items()},
                "to_foreach": median_ratio(values, base),
                "to_fused": median_ratio(values, fused),
            }
            for name, values in seconds.items()
        },
    }
    for name, entry in result["contestants"].items():
        print(f"{name:<24}{entry['ms']['median']:8.1f} ms{entry['to_foreach']:7.2f}{entry['to_fused']:7.2f}")
    harness.save("optimizer", result, options)


if __name__ == "__main__":
    main()
