"""What may happen to a run while it trains, and what becomes of it."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from forked import Strike, at_call
from points import TWO

import sdar.learning.module
from sdar.environments.alfworld.environment import AlfworldPool
from sdar.learning.datamodule import RolloutDataModule
from sdar.learning.ranks import Ranks
from sdar.policy.checkpoint_file import read_checkpoint


def spoil_gradients(first: int, last: int) -> Strike:
    """NaN in the gradients of some micro-batches."""

    def install() -> None:
        original, calls = Ranks.backward, 0

        def backward(self: Ranks, module: Any, loss: Any, *, synchronize: bool) -> None:
            nonlocal calls
            calls += 1
            original(self, module, loss, synchronize=synchronize)
            if first <= calls <= last:
                next(parameter for parameter in module.parameters() if parameter.grad is not None).grad.fill_(torch.nan)

        Ranks.backward = backward  # type: ignore[method-assign]

    return install


def spoil(what: str) -> Strike:
    """NaN in a weight or a moment after the third optimizer step."""

    def install() -> None:
        original, calls = torch.optim.AdamW.step, 0

        def step(self: torch.optim.AdamW, *arguments: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            result = original(self, *arguments, **more)
            if calls == 3:
                parameter = self.param_groups[0]["params"][-1]
                tensor = parameter.data if what == "weight" else self.state[parameter]["exp_avg"]
                tensor.flatten()[0] = torch.nan
            return result

        torch.optim.AdamW.step = step  # type: ignore[method-assign]

    return install


def in_environment(act: Callable[[], Any]) -> Strike:
    """From the second iteration on every step of the environment does something else."""

    def install() -> None:
        original = RolloutDataModule.collect

        def collect(self: RolloutDataModule, iteration: int, **more: Any) -> Any:
            if iteration >= 1:
                AlfworldPool.step = lambda self, actions: act()  # type: ignore[method-assign,assignment,misc]
            return original(self, iteration, **more)

        RolloutDataModule.collect = collect  # type: ignore[method-assign]

    return install


def fail() -> None:
    raise OSError("the simulator is gone")


def leave() -> None:
    raise SystemExit(0)


def small_files() -> None:
    """As ``ulimit -f`` has it: a checkpoint does not fit, logs do."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


def send(number: int, rank: int | None = None) -> Strike:
    """A signal to this process in the second iteration, on all ranks or on one."""

    def act() -> None:
        if rank is None or os.environ.get("RANK", "0") == str(rank):
            os.kill(os.getpid(), number)

    return at_call(sdar.learning.module, "prepare", 2, act)


def full_logs(folder: Path) -> None:
    """Logs that are on a full disk."""
    folder.mkdir(parents=True)
    for name in ("episodes.jsonl", "skills.jsonl"):
        (folder / name).symlink_to("/dev/full")


def cut_last(folder: Path) -> None:
    """The newest checkpoint is cut in half."""
    path = folder / "checkpoints" / "last.ckpt"
    os.truncate(path, path.stat().st_size // 2)


def flip_last(folder: Path) -> None:
    """Some bytes in the middle of the newest checkpoint are others."""
    path = folder / "checkpoints" / "last.ckpt"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)


def is_whole(folder: Path) -> bool:
    """Whether the newest checkpoint can be read."""
    return bool(read_checkpoint(folder / "checkpoints" / "last.ckpt"))


@dataclass(frozen=True)
class Fault:
    """A fault and its outcome.

    ``strike``     installed before the run
    ``before``     done to the run folder before the run
    ``after``      done to the run folder after the run, and before it is continued
    ``settings``   of the run beside those of all
    ``codes``      exit codes, or minus the signal, of every rank; None: any
    ``says``       part of the last sentence, in which {1} is the process of rank 1; "" for a run that ends well
    ``told``       part of what is said on the way
    ``continued``  part of what the continued run says; None: there is nothing to continue
    ``seconds``    within which the run ends, also where the machine is busy; without an end it would go on for longer
    """

    what: str
    outcome: str
    codes: tuple[int | None, ...]
    says: str = ""
    told: str = ""
    strike: Strike | None = None
    before: Callable[[Path], None] | None = None
    after: Callable[[Path], None] | None = None
    settings: tuple[str, ...] = ()
    continued: str | None = "continuing from"
    seconds: float = 300.0
    ranks: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranks", len(self.codes))


TERM, INT = 128 + signal.SIGTERM, 128 + signal.SIGINT
SOON = "rollout.max_bad_iterations=1"
FAULTS: Mapping[str, Fault] = {
    "one bad gradient": Fault(
        "a gradient that is not finite in one step",
        "the step is skipped and counted in `train/skipped_steps`",
        (0,),
        told="it is skipped (1 in a row, optimizer.max_bad_steps=3)",
        strike=spoil_gradients(3, 3),
        continued=None,
    ),
    "bad gradients": Fault(
        "gradients that are not finite in more than `optimizer.max_bad_steps` steps in a row",
        "the run ends",
        (1,),
        says="optimizer.max_bad_steps=1: continue from an earlier checkpoint",
        strike=spoil_gradients(3, 99),
        settings=("optimizer.max_bad_steps=1",),
    ),
    "a bad weight": Fault(
        "a weight that is not finite",
        "the iteration is not saved, and the run ends",
        (1,),
        says="not finite",
        strike=spoil("weight"),
    ),
    "a bad moment": Fault(
        "a moment of the optimizer that is not finite",
        "the iteration is not saved, and the run ends",
        (1,),
        says="not finite",
        strike=spoil("moment"),
    ),
    "environment raises": Fault(
        "an environment that raises in every step",
        "episodes end as `error_environment`; after `rollout.max_bad_iterations` such iterations the run ends",
        (1,),
        says="OSError: the simulator is gone",
        strike=in_environment(fail),
        settings=(SOON,),
    ),
    "environment leaves": Fault(
        "`sys.exit` inside an environment",
        "the same",
        (1,),
        says="SystemExit",
        strike=in_environment(leave),
        settings=(SOON,),
    ),
    "environment hangs": Fault(
        "a step of an environment that never returns",
        "episodes end as `error_environment` after `rollout.environment_timeout_s`; then the same",
        (1,),
        says="did not answer within",
        strike=in_environment(lambda: time.sleep(600)),
        settings=(SOON, "rollout.environment_timeout_s=1"),
    ),
    "no room for a checkpoint": Fault(
        "a full disk, or `ulimit -f`, while a checkpoint is written",
        "nothing that was saved is lost, no half file stays, and the run ends",
        (1,),
        says="cannot be written (File too large; ",
        strike=at_call(RolloutDataModule, "collect", 2, small_files),
    ),
    "no room for logs": Fault(
        "a full disk under the logs",
        "one warning; training goes on",
        (0,),
        told="cannot be written (No space left on device); training goes on without it",
        before=full_logs,
        continued=None,
    ),
    "SIGTERM": Fault(
        "SIGTERM",
        "the run ends between two turns with the checkpoint of the last whole iteration",
        (TERM,),
        says="stopped by SIGTERM after iteration",
        strike=send(signal.SIGTERM),
    ),
    "SIGINT": Fault(
        "SIGINT (Ctrl-C)",
        "the same",
        (INT,),
        says="stopped by SIGINT after iteration",
        strike=send(signal.SIGINT),
    ),
    "SIGTERM to all ranks": Fault(
        "SIGTERM to all processes of a run",
        "they agree, and end after the iteration",
        (TERM, TERM),
        says="stopped by SIGTERM after iteration",
        strike=send(signal.SIGTERM),
        settings=tuple(TWO),
    ),
    "SIGTERM to one rank": Fault(
        "SIGTERM to one of several processes",
        "the same",
        (TERM, TERM),
        says="stopped by SIGTERM after iteration",
        strike=send(signal.SIGTERM, rank=1),
        settings=tuple(TWO),
    ),
    "a rank is killed": Fault(
        "a process of several is killed",
        "the others end and name it",
        (1, -signal.SIGKILL),
        says="error: rank 1 (process {1} on ",
        strike=send(signal.SIGKILL, rank=1),
        settings=tuple(TWO),
        told=") was killed; the run ended after iteration ",
    ),
    "a rank stops": Fault(
        "a process of several is stopped (SIGSTOP)",
        "the others end after `rank_timeout_minutes` and name it",
        (1, None),
        says="error: rank 1 (process {1} on ",
        strike=send(signal.SIGSTOP, rank=1),
        told="no sign of life for rank_timeout_minutes=0.1; the run ended after iteration ",
        settings=(*TWO, "rank_timeout_minutes=0.1"),
    ),
    "last is cut": Fault(
        "the newest checkpoint is cut in half",
        "`ckpt_path=last` skips it, says so, and takes the one before",
        (-signal.SIGKILL,),
        strike=at_call(torch.optim.AdamW, "step", 5),
        after=cut_last,
        continued="only in part",
    ),
    "last is damaged": Fault(
        "bytes of the newest checkpoint change",
        "the same",
        (-signal.SIGKILL,),
        strike=at_call(torch.optim.AdamW, "step", 5),
        after=flip_last,
        continued="are not those that were written",
    ),
}
