"""How noisy is each form of the distillation's gradient, on real rollouts of the tiny model?

    python benchmarks/estimator_variance.py [--rounds 12] [--seed 1] [overrides ...]

The warm-started model plays ``--rounds`` times the tasks of an iteration, once each; its teacher is itself with the
skills. Rounds are independent of each other. Each form's gradient is taken per round, and over the rounds

    length   of the mean gradient, its own noise taken off
    noise    of a step of 48 episodes: the root of the trace of the gradient's covariance
    ratio    noise over length: how many times louder the chance of the draw is than what is being said
    variance of a step, in units of that of the form without sampling noise and the same expectation
    cosine   of the mean gradient to that form's, the noise of both taken off: 1 where they are the same, and by chance
             also above 1

``gate`` forms have the expectation of SDAR's gradient, ``kl`` forms that of the reverse KL; the lengths of the two
families differ by about beta / 4 (with small gaps). Every form sees the same tokens. The table, in Markdown, has 95 %
intervals: Student's t over the jackknife's pseudo-values, one per round, of the cosine and of the logarithm of the
others. No draw has a part in them.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from sdar.environments.base import training_tasks
from sdar.evaluation.statistics import Estimate, Interval, mean_over_runs
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
from sdar.run.folder import git_revision
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
    "`gate=gap divergence=sampled` (SDAR)": objective(GapGate(), Sampled()),
    "`gate=centred`": objective(CentredGate(), Sampled()),
    "`gate=centred gate.baseline=step_mean`": objective(CentredGate(baseline="step_mean"), Sampled()),
    "`divergence=gated_expected`": objective(GapGate(), GatedExpected()),
    "`gate=none divergence=sampled_rkl`": objective(NoGate(), SampledReverseKL()),
    "`gate=none divergence=reverse_kl`": objective(NoGate(), ReverseKL()),
}
EXACT = dict(zip(FORMS, ["`divergence=gated_expected`"] * 4 + ["`gate=none divergence=reverse_kl`"] * 2, strict=True))
"""The form without sampling noise that has the expectation of each."""


@dataclass(frozen=True)
class Products:
    """Inner products [rounds, rounds] of the rounds' gradients: of a form's own, of the exact form's, of one another.

    ``share``  of a round's variance that the mean of a step's episodes has
    """

    own: Tensor
    exact: Tensor
    across: Tensor
    share: float

    @classmethod
    def of(cls, own: Tensor, exact: Tensor, share: float) -> Self:
        """Of gradients [rounds, parameters]."""
        own, exact = own.double(), exact.double()
        return cls(own @ own.T, exact @ exact.T, own @ exact.T, share)

    def without(self, number: int) -> Products:
        """Those of all rounds but one."""
        kept = [other for other in range(len(self.own)) if other != number]
        return Products(*(each[kept][:, kept] for each in (self.own, self.exact, self.across)), self.share)


def length(products: Products) -> float:
    """0 where the noise of the mean is longer than it."""
    return math.sqrt(max(_of_means(products.own), 0.0))


def noise(products: Products) -> float:
    """See the head of the file."""
    return math.sqrt(_trace(products.own) * products.share)


def ratio(products: Products) -> float:
    """Infinite where the length is 0."""
    return noise(products) / length(products) if length(products) > 0 else math.inf


def variance(products: Products) -> float:
    """See the head of the file."""
    return _trace(products.own) / _trace(products.exact)


def cosine(products: Products) -> float:
    """nan where a length is 0."""
    squares = _of_means(products.own), _of_means(products.exact)
    return _of_means(products.across) / math.sqrt(squares[0] * squares[1]) if min(squares) > 0 else math.nan


def with_interval(figure: Callable[[Products], float], products: Products, *, logarithm: bool) -> Estimate:
    """The figure of all rounds with its interval; without end where leaving a round out leaves no figure."""
    rounds = len(products.own)
    value, others = figure(products), [figure(products.without(number)) for number in range(rounds)]
    if not all(math.isfinite(each) and (each > 0 or not logarithm) for each in (value, *others)):
        return Estimate(value, Interval(-math.inf, math.inf), rounds)
    scaled, *left = (math.log(each) if logarithm else each for each in (value, *others))
    low, high = mean_over_runs([rounds * scaled - (rounds - 1) * each for each in left]).interval
    return Estimate(value, Interval(math.exp(low), math.exp(high)) if logarithm else Interval(low, high), rounds)


def _of_means(products: Tensor) -> float:
    """Inner product of two mean gradients. The noise of a round would add to its product with itself: left out."""
    rounds = len(products)
    return float(products.sum() - products.trace()) / (rounds * (rounds - 1))


def _trace(products: Tensor) -> float:
    """Of the covariance over rounds."""
    rounds = len(products)
    return float(products.trace() - products.sum() / rounds) / (rounds - 1)


COLUMNS = {
    "length": (length, "{:.4f}", True),
    "noise": (noise, "{:.4f}", True),
    "noise / length": (ratio, "{:.2f}", True),
    "variance": (variance, "{:.1f}x", True),
    "cosine of the means": (cosine, "{:.3f}", False),
}
"""Heading -> figure, how it is written, and whether its interval is that of its logarithm."""


def table(gradients: dict[str, Tensor], share: float) -> str:
    """A row per form, from gradients [rounds, parameters] of each."""
    lines = [f"| form | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, own in gradients.items():
        products = Products.of(own, gradients[EXACT[name]], share)
        cells = []
        for heading, (figure, written, logarithm) in COLUMNS.items():
            found = with_interval(figure, products, logarithm=logarithm)
            itself = EXACT[name] == name and heading in ("variance", "cosine of the means")
            span = "" if itself else f" ({written.format(found.interval.low)} to {written.format(found.interval.high)})"
            cells.append(written.format(found.mean) + span)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Play, take the gradients and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="rounds of one episode per task, at least 3")
    parser.add_argument("--tasks", type=int, default=24, help="tasks of a round")
    parser.add_argument("--seed", type=int, default=1)
    arguments, overrides = parser.parse_known_args()
    if arguments.rounds < 3:
        parser.error(f"--rounds must be at least 3, got {arguments.rounds}")
    began = time.perf_counter(), time.process_time()
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
    print(f"\n{table(gradients, arguments.tasks / STEP_EPISODES)}\n")
    git = git_revision()
    made = "no clone" if git is None else git["revision"][:7] + (" with changes" if git["changed"] else "")
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    print(f"revision {made}; {wall:.0f} seconds, {cpu:.0f} CPU seconds")


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


if __name__ == "__main__":
    main()
