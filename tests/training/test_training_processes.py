"""Several processes against one."""

import os
import signal

import pytest
import torch
from launch import Forked
from safetensors.torch import load_file, save_file
from small_tasks import arguments, tasks

from sbert_mini.encoder.module import load
from sbert_mini.training import processes
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


def train_in_processes(folder, start, kinds, kill_at=None, checkpoint=None):
    """What one of the processes does: train each kind, and write its weights; or be killed when it has saved a step."""
    import torch.distributed as dist
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_save(self, args, state, control, **options):
            if state.global_step == kill_at:
                processes.wait()  # until the others' part of the checkpoint is there, too
                os.kill(os.getpid(), signal.SIGKILL)

    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", world_size=world, rank=rank)
    for kind in kinds:
        loss = kind if kind in ("cosent", "cached-multiple-negatives-ranking") else "multiple-negatives-ranking"
        more = tasks(value=0.5)
        config = TaskConfig("rank", "siamese", loss, high=5.0, positive=0.0, mini_batch_size=2)
        given = [Task(t.config, t.train, None, t.margin) for t in more] + [Task(config, more[2].train)]
        torch.manual_seed(rank)  # heads must be agreed upon, whatever each process draws
        resumed = "resumed" in kind
        dtype = torch.float32 if resumed else torch.float64  # checkpoints are read in single precision
        model = load(start, device="cpu").to(dtype)
        args = arguments(
            folder / kind / f"run{world}", max_steps=4 if resumed else 2, save_steps=2,
            save_strategy="steps" if resumed else "no",
            ddp_backend="gloo" if world > 1 else None, gradient_accumulation_steps=2 if kind == "accumulated" else 1,
            save_total_limit=2, max_grad_norm=0.05,
        )  # fmt: skip
        fitter = FitterConfig(batch_size=16, surgery=None if kind == "none" else "pcgrad")
        trainer = MultiTaskTrainer(model, args, given, fitter, callbacks=[Kill()])
        if rank == 0:
            torch.manual_seed(0)
            for objective in trainer.objectives.values():
                for parameter in objective.parameters():
                    torch.nn.init.normal_(parameter, std=0.02)
        for objective in trainer.objectives.values():
            objective.to(dtype)
        trainer.train(resume_from_checkpoint=checkpoint)
        heads = {f"{n}.{k}": t for n, o in trainer.objectives.items() for k, t in o.state_dict().items()}
        state = {**model.state_dict(), **heads, "margin": torch.tensor(trainer.objectives["sts"].margin.value)}
        save_file({n: t.contiguous() for n, t in state.items()}, folder / kind / f"{world}-{rank}.safetensors")
    processes.leave()


def run_processes(folder, start, kinds, world, *more, ends=0):
    """Train each kind, one after the other in one launch; return kind -> each process' weights."""
    (folder / "store").unlink(missing_ok=True)
    for kind in kinds:
        (folder / kind).mkdir(exist_ok=True)
    own = {
        "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "GLOO_SOCKET_IFNAME": "lo",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0",
    }  # fmt: skip
    running = [
        Forked(
            train_in_processes, folder, start, kinds, *more,
            folder=folder, name=f"said-{rank}", env={**own, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]  # fmt: skip
    for process in running:
        process.end(ends)
    if ends:
        return None
    return {kind: [load_file(folder / kind / f"{world}-{rank}.safetensors") for rank in range(world)] for kind in kinds}


KINDS = ("pcgrad", "cosent", "none", "accumulated", "cached-multiple-negatives-ranking")


def test_two_processes_take_the_steps_of_one(make_model, tmp_path):
    """Each kind by one process, then by two: one launch of each for all kinds, as starting costs more than training."""
    start = make_model(seed=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    alone, together = (run_processes(tmp_path, start, KINDS, world) for world in (1, 2))
    begun = load(start, device="cpu").double().state_dict()
    for kind in KINDS:
        (one,), (first, second) = alone[kind], together[kind]
        assert max(float((one[n] - t).abs().max()) for n, t in begun.items()) > 1e-3, f"{kind}: it must have moved"
        for name, tensor in one.items():
            assert torch.equal(first[name], second[name]), f"{kind}, {name}: the processes are out of step"
            torch.testing.assert_close(first[name], tensor, rtol=0, atol=1e-6, msg=f"{kind}, {name}")


@pytest.mark.long
def test_two_processes_that_were_killed_resume_where_they_were(make_model, tmp_path):
    """With dropout, of which each process has its own masks."""
    start = make_model(seed=2, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    straight = run_processes(tmp_path, start, ["resumed-never"], 2)["resumed-never"]
    run_processes(tmp_path, start, ["resumed"], 2, 2, ends=-signal.SIGKILL)
    half = tmp_path / "resumed" / "run2" / "checkpoint-2"
    again = run_processes(tmp_path, start, ["resumed"], 2, None, str(half))["resumed"]
    for one, other in zip(straight, again, strict=True):
        assert all(torch.equal(other[name], tensor) for name, tensor in one.items())


def test_a_batch_is_shared_by_processes_in_whole_examples():
    from sbert_mini.training.schedule import Schedule

    schedule = Schedule("proportional", {"a": 900, "b": 100}, 20, 1, floor=3, unit=4)
    assert schedule.sizes_at(0) == (16, 4)
    schedule = Schedule("dynamic", {"a": 9, "b": 9, "c": 9}, 36, 1, floor=1, unit=2)
    schedule.reallocate({"a": 0.9, "b": 0.05, "c": 0.05}, 4)
    assert sum(schedule.sizes_at(4)) == 36
    assert all(size % 2 == 0 for size in schedule.sizes_at(4))
