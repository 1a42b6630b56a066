"""Processes for the tests, forked from a server that has imported the libraries, and nothing of ours: that takes seconds."""

import os
import signal
import sys
import traceback
from multiprocessing import get_context
from pathlib import Path

FORKED = get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "pytest",
        "hypothesis.strategies",
        "torch.distributed",
        "peft",
        "datasets",
        "transformers.trainer",
        "transformers.models.bert.modeling_bert",
        "sentence_transformers.sentence_transformer.trainer",
        "sentence_transformers.sentence_transformer.losses",
    ]
)
LIMIT = 600
"""Seconds that a process may take."""


class Forked:
    """A process that calls a function of a module of the tests, in a folder, with further variables of the environment."""

    def __init__(self, function, *arguments, folder, name="said", env=None):
        self._said = Path(folder, f"{name}.txt")
        self._process = FORKED.Process(target=_call, args=(function, arguments, folder, self._said, env or {}))
        self._process.start()

    def end(self, code=0):
        """Wait until it has ended, by this exit code; a negative one is that of a signal."""
        self._process.join(LIMIT)
        hangs = self._process.exitcode is None
        if hangs:
            self._process.kill()
            self._process.join()
        assert not hangs, f"not over within {LIMIT} s: {self._said.read_text()}"
        assert self._process.exitcode == code, self._said.read_text()


def _call(function, arguments, folder, said, env):
    with said.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.environ.update(env)
    os.chdir(folder)
    code = 1
    try:
        function(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # as the command ends: libraries that are taken apart while threads of theirs run may abort


class _Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "sbert_mini":
            raise ImportError("sbert_mini is not to be imported here")


def encode_without_ours(path, texts, output, lora_rank):
    """Encode by plain sentence-transformers where sbert_mini cannot be imported; with a fresh adapter, where it has a rank."""
    import numpy as np
    from peft import LoraConfig, TaskType
    from sentence_transformers import SentenceTransformer

    assert not any(name.partition(".")[0] == "sbert_mini" for name in sys.modules)
    sys.meta_path.insert(0, _Refuse())
    model = SentenceTransformer(str(path), local_files_only=True)
    if lora_rank:
        config = LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=lora_rank, target_modules=["query", "value"])
        model.add_adapter(config)
        found = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert found == 6 * 2 * 2 * lora_rank * 384
    np.save(output, model.encode(texts))


def fit_and_be_killed(output, step=None, line=None):
    """Train by `recipe.toml`; SIGKILL ends it when the checkpoint of a step is saved, or a line of progress is printed."""
    from transformers import TrainerCallback

    from sbert_mini.recipes.fit import fit
    from sbert_mini.recipes.plan import prepare
    from sbert_mini.recipes.reader import read_recipe
    from sbert_mini.recipes.settings import computing_threads

    class Kill(TrainerCallback):
        def on_save(self, args, state, control, **options):
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)

    def tell(said):
        if line is not None and said.startswith(line):
            os.kill(os.getpid(), signal.SIGKILL)

    plan = prepare(read_recipe(Path("recipe.toml").resolve()), output=output)
    with computing_threads(1):
        fit(plan, offline=True, callbacks=[Kill()], on_progress=tell)
