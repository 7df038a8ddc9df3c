"""What ``test_parallel.py`` has two processes do; started by torchrun, all cases in one start.

    parallel_run.py FOLDER URL

The folder holds ``recorded.pkl`` and ``alone.ckpt`` of one process; each case leaves its curve, weights and checkpoint.
A server at the address plays the rollouts of one case.
"""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from sdar.callbacks.evaluation import PanelEvaluation
from sdar.evaluation.panel import make_panel
from sdar.evaluation.record import PanelRecords
from sdar.learning.datamodule import Iteration, RolloutDataModule
from sdar.learning.strategies import fully_sharded
from sdar.learning.supervision import SolvedEpisodes
from sdar.objective.estimator import AdvantageEstimator
from sdar.objective.full_vocabulary import ReverseKL
from sdar.objective.gate import NoGate
from sdar.policy.language_model import LanguageModel
from sdar.rollout.collector import Collector
from sdar.rollout.sampling import generators
from sdar.rollout.vllm.settings import VllmSettings
from sdar.teacher.weights import TeacherSource
from toys.methods import TRAINED, method_run
from toys.training import (
    PLAIN_GRPO,
    HintTeacher,
    LettersEnvironment,
    Memory,
    toy_datamodule,
    toy_module,
    toy_policy,
    toy_rollout,
    toy_trainer,
)

SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "max_tokens_per_micro_batch": 300, "entropy_coefficient": 0.01}
TAUGHT: dict[str, dict[str, Any]] = {
    # Two optimizer steps an iteration: in the second the teacher has moved and is asked again.
    "sampled": {"distillation_coefficient": 0.5},
    "whole": {
        "distillation_coefficient": 0.5,
        "gate": NoGate(),
        "divergence": ReverseKL(),
    },
}
TAUGHT["measured"] = TAUGHT["whole"] | {"measure_terms_every_n_iterations": 1}
TAUGHT["initial"] = TAUGHT["whole"] | {"source": TeacherSource.INITIAL}
TAUGHT["kept"] = TAUGHT["whole"] | {"source": TeacherSource.OLD, "keep_hidden": True}
"""How a teacher of the present weights is asked."""
STRATEGIES: dict[str, Callable[[], Any]] = {"ddp": lambda: "ddp", "fsdp2": lambda: fully_sharded(2, 1)}
PRECISIONS = ("bf16-mixed", "bf16-true")
BY_ROWS: dict[str, dict[str, Any]] = {
    "rows": {"episodes_per_step": None, "rows_per_step": 3},
    "reference_code": {"episodes_per_step": None, "rows_per_step": 4, "micro_batch_rows": 1},
}
"""Optimizer steps counted in rows: those of both ranks, of which one has none."""


class BadOnOneRank(AdvantageEstimator):
    """Advantages that are not numbers, in the first iteration, on the second rank alone."""

    bad = True

    def turns(self, episodes: Sequence[Any]) -> list[list[float]]:
        value = math.nan if self.bad and torch.distributed.get_rank() == 1 else 1.0
        self.bad = False
        return [[value] * len(episode.turns) for episode in episodes]


SUPERVISED = {"supervision": SolvedEpisodes(coefficient=0.5)}
METHODS_TO_SHARE = {method: ("append", "window")[number % 2] for number, method in enumerate(TRAINED)}
"""Every method that is trained, and how it plays: the two ways in turn."""
ANALYZED = ["teacher=hindsight_by_policy", "teacher.analyzer.max_tokens=6", "teacher.analyzer.instruction=why"]
"""A teacher that lets the policy write before it is scored, on each rank as often as it has episodes."""
RECORDED = 2
"""Iterations of the recording."""

Curve = dict[int, dict[str, float]]


class Replay(RolloutDataModule):
    """Hands out recorded episodes, whole groups in turn, as the real one deals out tasks."""

    def __init__(self, recorded: list[list[Any]]) -> None:
        live = toy_datamodule(two_layers())
        super().__init__(live.collector, live.environment, PLAIN_GRPO, live.rollout, live.seed)
        self.recorded = recorded

    def collect(self, iteration: int, *, rank: int = 0, world_size: int = 1) -> Iteration:
        episodes = self.recorded[iteration]
        groups = [episodes[i : i + 3] for i in range(0, len(episodes), 3)]
        mine = [episode for group in groups[rank::world_size] for episode in group]
        return Iteration(
            iteration, mine, {"generate_s": 0.0, "environment_s": 0.0}, [group[0].task for group in groups]
        )


def two_layers() -> LanguageModel:
    """Weights are spread layer by layer."""
    return toy_policy(layers=2)


def record() -> list[list[Any]]:
    """Episodes of some iterations, all played with the initial weights."""
    live = toy_datamodule(two_layers())
    return [live.collect(iteration).episodes for iteration in range(RECORDED)]


def live_datamodule(policy: Any, *, broken: bool, context: str) -> RolloutDataModule:
    """In the broken case one of the two tasks, and so one rank in every iteration, only ever ends by an error."""
    count = 2 if broken else 4
    environment = LettersEnvironment(tasks=count, broken=broken)
    return toy_datamodule(policy, environment=environment, tasks=count, context=context)


def panel_evaluation(policy: Any, panels: Path | None) -> PanelEvaluation:
    """Five tasks: the shares of two ranks differ, and so do their turns. ``panels``: where they are recorded."""
    environment = LettersEnvironment()
    collector = Collector(policy, environment, toy_rollout(temperature=0.4, max_concurrent_episodes=2))
    panel = make_panel(environment, "valid", 5, 0)
    records = None if panels is None else PanelRecords(panels, {})
    return PanelEvaluation(collector, panel, seed=0, every_n_iterations=5, records=records)


def fit(
    iterations: int,
    *,
    recorded: list[list[Any]] | None = None,
    broken: bool = False,
    context: str = "append",
    steps: dict[str, Any] | None = None,
    recompute: bool = False,
    evaluate: bool = False,
    panels: Path | None = None,
    taught: str | None = None,
    method: str | None = None,
    choices: Sequence[str] = (),
    served: str | None = None,
    save: Path | None = None,
    ckpt_path: Path | None = None,
    **trainer: Any,
) -> tuple[Curve, Any]:
    """Train the toy; returns the curve and the trainer.

    ``save``: where the last checkpoint goes; ``steps``: settings of the module; ``served``: address of a server that
    plays the rollouts.
    """
    if method is not None:
        module, data = method_run(method, *choices, context=context, learning_rate=1e-3, max_tokens_per_micro_batch=300)
        return _fit(module, data, iterations, save=save, ckpt_path=ckpt_path, **trainer)
    policy = two_layers()
    settings = SETTINGS | (steps or {}) | (TAUGHT[taught] if taught else {})
    source = settings.pop("source", TeacherSource.OLD if taught is None else TeacherSource.CURRENT)
    teacher = HintTeacher(source=source, keep_hidden=settings.pop("keep_hidden", False))
    module = toy_module(policy, teacher, context=context, **settings)
    if recompute:
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    callbacks: list[Any] = [panel_evaluation(policy, panels)] if evaluate else []
    data = live_datamodule(policy, broken=broken, context=context) if recorded is None else Replay(recorded)
    if served is not None:
        vllm = VllmSettings(url=served, timeout_s=60.0)
        data.collector.settings = replace(data.collector.settings, backend="vllm", vllm=vllm)
        module.rollout = replace(module.rollout, backend="vllm", vllm=vllm)
        data.collector.generator_factory = generators(module.rollout)
    return _fit(module, data, iterations, callbacks, save=save, ckpt_path=ckpt_path, **trainer)


def _fit(
    module: Any,
    data: Any,
    iterations: int,
    callbacks: Sequence[Any] = (),
    *,
    save: Path | None,
    ckpt_path: Path | None,
    **trainer: Any,
) -> tuple[Curve, Any]:
    saving = []
    if save is not None:
        saving.append(ModelCheckpoint(dirpath=save.parent, filename=save.stem, save_on_train_epoch_end=True))
    memory = Memory()
    fitted = toy_trainer(
        iterations,
        logger=memory,
        callbacks=[*callbacks, *saving],
        enable_checkpointing=save is not None,
        use_distributed_sampler=False,
        **trainer,
    )
    fitted.fit(module, datamodule=data, ckpt_path=None if ckpt_path is None else str(ckpt_path), weights_only=True)
    return memory.curve(), fitted


def main(folder: Path, served: str) -> None:
    recorded = pickle.loads((folder / "recorded.pkl").read_bytes())
    for name, strategy in STRATEGIES.items():

        def run(case: str, iterations: int, name: str = name, strategy: Any = strategy, **settings: Any) -> Path:
            checkpoint = folder / f"{name}-{case}.ckpt"
            curve, trainer = fit(iterations, save=checkpoint, devices=2, strategy=strategy(), **settings)
            if trainer.is_global_zero:
                torch.save(curve, folder / f"{name}-{case}.curve")
                for callback in trainer.callbacks:
                    if isinstance(callback, PanelEvaluation):
                        torch.save(callback.results[0][0].recorded, folder / f"{name}-{case}.recorded")
            return checkpoint

        run("replay", RECORDED, recorded=recorded)
        for precision in PRECISIONS if name == "fsdp2" else ():
            run(precision, 2, recorded=recorded, precision=precision)
        run("recomputed", RECORDED, recorded=recorded, recompute=True)
        run("continued", RECORDED, recorded=recorded, ckpt_path=folder / "alone.ckpt")
        run("broken", 2, broken=True)
        run("window", 2, broken=True, context="window")
        for case, steps in BY_ROWS.items():
            run(case, 2, broken=True, context="window", steps=steps)
        run("served", 2, broken=True, served=served)
        run("supervised", 2, steps=SUPERVISED)
        run("bad", 2, recorded=recorded, steps={"advantage": BadOnOneRank()})
        run("analyzed", 2, method="hindsight", choices=ANALYZED)
        run("taught-sampled", 2, taught="sampled")
        run("taught-idle", 2, broken=True, taught="sampled", steps={"episodes_per_step": 4})
        run("taught-whole", 2, broken=True, taught="whole")
        run("taught-initial", 2, broken=True, taught="initial")
        run("taught-kept", 2, broken=True, taught="kept")
        if name == "ddp":  # gradients of single terms are not measured where weights are sharded
            run("taught-measured", 2, broken=True, taught="measured")
        if name == "ddp":  # what methods do beyond these is the same whatever the strategy
            for method in METHODS_TO_SHARE:
                run(f"method-{method}", 2, method=method, context=METHODS_TO_SHARE[method])
        for case in ("whole", "from the record"):
            run(case, 2, evaluate=True, panels=folder / f"{name}-panels")
        first = run("first", 1)
        run("resumed", 2, ckpt_path=first)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
