"""How noisy is each form of the distillation's gradient, on real rollouts of the tiny model?

    python benchmarks/estimator_variance.py [--rounds 12] [--seed 1] [overrides ...]

The warm-started model plays ``--rounds`` times the tasks of an iteration, once each; its teacher is itself with the
skills. Rounds are independent of each other. Each form's gradient is taken per round, and over the rounds

    length   of the mean gradient, its own noise taken off
    noise    of a step of 48 episodes: the root of the trace of the gradient's covariance
    ratio    noise over length: how many times louder the chance of the draw is than what is being said
    cosine   of the mean to that of the form without sampling noise and the same expectation

``gate`` forms have the expectation of SDAR's gradient, ``kl`` forms that of the reverse KL; the lengths of the two
families differ by about beta / 4 (with small gaps). Every form sees the same tokens.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdar.environments.base import training_tasks
from sdar.learning.datamodule import sample_tasks
from sdar.learning.loss import UpdateTeacher, student_scores
from sdar.learning.prepare import prepare
from sdar.learning.prepared import Prepared
from sdar.learning.update import gate_sum
from sdar.objective.divergence import Sampled, SampledReverseKL
from sdar.objective.full_vocabulary import GatedExpected, ReverseKL
from sdar.objective.gate import CentredGate, GapGate, NoGate
from sdar.objective.objective import ObjectiveConfig, token_losses
from sdar.policy.trainable import trainable
from sdar.rollout.collector import EpisodeRequest
from sdar.run.assembly import Assembly, assemble
from sdar.run.settings import RunSettings
from sdar.run.validate import compose
from sdar.teacher.weights import TeacherModel

STEP_EPISODES = 48


def objective(gate: object, divergence: object) -> ObjectiveConfig:
    """The distillation term alone."""
    return ObjectiveConfig(
        policy_coefficient=0.0,
        kl_coefficient=0.0,
        entropy_coefficient=0.0,
        distillation_coefficient=1.0,
        gate=gate,  # type: ignore[arg-type]
        divergence=divergence,  # type: ignore[arg-type]
    )


FORMS = {
    "gate: SDAR": objective(GapGate(), Sampled()),
    "gate: centred on 1/2": objective(CentredGate(), Sampled()),
    "gate: centred on the step": objective(CentredGate(baseline="step_mean"), Sampled()),
    "gate: expected": objective(GapGate(), GatedExpected()),
    "kl: sampled": objective(NoGate(), SampledReverseKL()),
    "kl: whole vocabulary": objective(NoGate(), ReverseKL()),
}
EXACT = {"gate": "gate: expected", "kl": "kl: whole vocabulary"}


@dataclass(frozen=True)
class Noise:
    """Length of the mean gradient, noise of a step, and cosine to the exact form's mean."""

    length: float
    noise: float
    cosine: float


def main() -> None:
    """Play, take the gradients and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="rounds of one episode per task, at least 2")
    parser.add_argument("--tasks", type=int, default=24, help="tasks of a round")
    parser.add_argument("--seed", type=int, default=1)
    arguments, overrides = parser.parse_known_args()
    settings = compose(["teacher.source=initial", "logger=none", *overrides])
    if settings.config["threads"] is not None:
        torch.set_num_threads(settings.config["threads"])
    assembly = assemble(settings)
    assert settings.teacher is not None
    teacher = TeacherModel(settings.teacher.weights, assembly.policy, assembly.module.initial)
    rounds = []
    for number in range(arguments.rounds):
        rounds.append(_round(assembly, settings, teacher, number, arguments.tasks, arguments.seed))
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
    gradients = {name: torch.stack([found[name] for found in rounds]) for name in FORMS}
    found = {
        name: _noise(own, gradients[EXACT[name.split(":")[0]]], arguments.tasks) for name, own in gradients.items()
    }
    print(f"\n{'form':<28}{'length':>12}{'noise':>12}{'ratio':>10}{'variance':>12}{'cosine':>10}")
    for name, row in found.items():
        exact = found[EXACT[name.split(":")[0]]]
        ratio = row.noise / row.length if row.length > 0 else math.inf
        times = (row.noise / exact.noise) ** 2
        print(f"{name:<28}{row.length:12.3e}{row.noise:12.3e}{ratio:10.2f}{times:11.1f}x{row.cosine:10.3f}")


def _round(
    assembly: Assembly, settings: RunSettings, teacher: TeacherModel, number: int, tasks: int, seed: int
) -> dict[str, Tensor]:
    """The gradient of every form, per token, over one episode of each task of the round."""
    drawn = sample_tasks(training_tasks(assembly.environment), tasks, seed=seed, iteration=number)
    collector = assembly.datamodule.collector
    episodes = collector.collect([EpisodeRequest(task, 0) for task in drawn], seed=seed, key=("noise", number)).episodes
    assert assembly.teacher is not None
    policy = assembly.policy
    blocks = [list(policy.chat.privileged(text)) for text in assembly.teacher.contexts(episodes)]
    optimizer = replace(settings.optimizer, max_tokens_per_micro_batch=8192, reuse_scores=False)
    prepared = prepare(
        episodes,
        settings.method,
        settings.rollout,
        optimizer,
        policy=policy,
        device="cpu",
        reference=assembly.module.reference,
        privileged=blocks,
        teacher=teacher,
    )
    return {name: _gradient(assembly, prepared, form, settings, teacher) for name, form in FORMS.items()}


def _gradient(
    assembly: Assembly, prepared: Prepared, form: ObjectiveConfig, settings: RunSettings, teacher: TeacherModel
) -> Tensor:
    model = assembly.policy.model.train(False)
    parameters = trainable(model)
    total = torch.zeros(sum(weight.numel() for weight in parameters))
    count = int(prepared.batch.response_mask.sum())
    if form.gate.centres_on_step:
        form = form.under(form.gate.centred_on(*gate_sum(prepared, form.gate, range(len(prepared.batch)))))
    assert prepared.teacher is not None
    for step in prepared.steps:
        for rows in step.micro_batches:
            asked = (
                UpdateTeacher(prepared.teacher.rows.select(rows), teacher) if form.divergence.full_vocabulary else None
            )
            temperature = settings.rollout.sampling.temperature
            scores, batch = student_scores(
                model, prepared.batch.select(rows), form, temperature=temperature, teacher=asked
            )
            loss = token_losses(scores, batch, form).terms["distillation"].sum() / count
            parts = torch.autograd.grad(loss, parameters)
            total += torch.cat([part.flatten() for part in parts])
    return total


def _noise(own: Tensor, exact: Tensor, tasks: int) -> Noise:
    """From gradients [rounds, parameters]."""
    rounds = len(own)
    trace = float(own.var(0).double().sum())
    mean = own.double().mean(0)
    # The mean of the rounds has noise of its own, which makes it longer than the true one.
    length = math.sqrt(max(float(mean @ mean) - trace / rounds, 0.0))
    other = exact.double().mean(0)
    cosine = float(mean @ other) / math.sqrt(float(mean @ mean) * float(other @ other))
    return Noise(length, math.sqrt(trace * tasks / STEP_EPISODES), cosine)


if __name__ == "__main__":
    main()
