"""What do the passes over an iteration's rows cost: the student's scoring, the teacher's, and the update?

    python benchmarks/passes.py [--rounds 3] [--hidden-size 512 --layers 14] [overrides ...]

The episodes of one iteration of the default run are played in both contexts, then every pass is timed, in turns: tokens
that it computes, CPU seconds, and the share of the rate of a large float32 matrix product that its arithmetic comes to
(2 operations per parameter and token of a forward pass, 6 with the backward pass, attention included). Without sizes
the shipped tiny model plays and is scored; with them a Qwen3 with random weights. One thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from rollout_backends import add_sizes, sized
from transformers import PreTrainedModel

from sdar.learning.batch import TokenRows, pack, pack_teacher
from sdar.learning.beginnings import shared_beginnings
from sdar.learning.prepare import teacher_micro_batches
from sdar.learning.step_plan import plan_steps
from sdar.policy.language_model import LanguageModel
from sdar.policy.log_probs import score_tokens
from sdar.policy.shared_prefixes import PrefixStore, SharedRows
from sdar.rollout.collector import EpisodeRequest
from sdar.run.assembly import assemble
from sdar.run.validate import compose
from sdar.teacher.base import join

RATE_SIZE = 2048


@dataclass
class Work:
    """Rows that are scored in these micro-batches.

    ``shared``  how many first ids of each row are looked up, and which rows begin alike; None: rows are computed whole
    """

    policy: LanguageModel
    rows: TokenRows
    micro_batches: Sequence[Sequence[int]]
    shared: Sequence[int] | None = None
    groups: Sequence[object] = ()

    def forward(self) -> None:
        """Score without gradient."""
        store = PrefixStore(self.policy.windows, self.policy.pad_id)
        shared = None if self.shared is None else SharedRows(store, self.shared)
        with torch.no_grad():
            for part in self.micro_batches:
                score_tokens(
                    self.policy.model, *self.rows.select(part), shared=None if shared is None else shared.of(part)
                )

    def update(self) -> None:
        """Score and go backward."""
        for part in self.micro_batches:
            score_tokens(self.policy.model, *self.rows.select(part)).log_probs.sum().backward()
        self.policy.model.zero_grad()

    @property
    def tokens(self) -> int:
        """That are computed; beginnings that rows share count once."""
        if self.shared is None:
            return sum(self.rows.lengths())
        beginnings = dict(zip(self.groups, self.shared, strict=True))
        return sum(self.rows.lengths()) - sum(self.shared) + sum(beginnings.values())

    @property
    def operations(self) -> float:
        """Of a forward pass over whole rows."""
        model = self.policy.model
        config = model.config.get_text_config()
        width = config.num_attention_heads * getattr(
            config, "head_dim", config.hidden_size // config.num_attention_heads
        )
        attended = sum(length**2 for length in self.rows.lengths())
        body = _body(model) * sum(self.rows.lengths())
        head = config.vocab_size * config.hidden_size * int(self.rows.response_mask.sum())
        return 2.0 * (body + head) + 2.0 * config.num_hidden_layers * width * attended


def _body(model: PreTrainedModel) -> int:
    """Parameters of the layers."""
    embedded = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings())}
    return sum(weight.numel() for weight in model.parameters() if id(weight) not in embedded)


def main() -> None:
    """Play, time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    add_sizes(parser)
    options, overrides = parser.parse_known_args()
    torch.set_num_threads(1)
    for context in ("append", "window"):
        student, teacher = works(context, options, overrides)
        kinds = {"student": student.forward, "teacher": teacher.forward, "update": student.update}
        rate = matrix_rate()
        seconds = timed(kinds, options.rounds)
        count = sum(weight.numel() for weight in student.policy.model.parameters())
        print(f"{context}, {count / 1e6:.2f} M parameters, {len(student.micro_batches)} micro-batches", flush=True)
        for kind, tokens in {"student": student.tokens, "teacher": teacher.tokens, "update": student.tokens}.items():
            print(f"  {kind:8} {tokens:8,} tokens {seconds[kind]:8.2f} CPU s", flush=True)
        for kind, passes in {"student": 1, "update": 3}.items():
            share = passes * student.operations / seconds[kind] / rate
            print(f"  {kind:8} {100 * share:.0f} % of {rate / 1e9:.0f} GFLOP/s, a float32 matrix product's rate")
        by_tokens, by_seconds = teacher.tokens / student.tokens, seconds["teacher"] / seconds["student"]
        print(f"  teacher / student: {by_tokens:.2f} by tokens, {by_seconds:.2f} by CPU seconds", flush=True)


def works(context: str, options: argparse.Namespace, overrides: Sequence[str]) -> tuple[Work, Work]:
    """The student's rows and the teacher's, of one iteration of the default run."""
    settings = compose([f"rollout={context}", "logger=none", *overrides])
    assembly = assemble(settings)
    policy, teacher = sized(assembly.policy, options), assembly.teacher
    assert teacher is not None
    join(teacher, assembly.environment, policy)
    collector = replace(assembly.datamodule.collector, policy=policy)
    tasks = assembly.environment.tasks("train")[: settings.rollout.tasks_per_iteration]
    requests = [EpisodeRequest(task, member) for task in tasks for member in range(settings.rollout.group_size)]
    episodes = collector.collect(requests, seed=settings.seed, key=("train", 0)).episodes
    batch = pack(episodes, [[0.0] * len(episode.turns) for episode in episodes], policy.pad_id, context)
    most = settings.optimizer.micro_batch_tokens("cpu")
    (step,) = plan_steps(batch.lengths(), episodes_per_step=None, max_tokens=most)
    blocks = [policy.chat.privileged(text) for text in teacher.contexts(episodes)]
    rows = pack_teacher(episodes, blocks, policy.pad_id, policy.context_tokens, context)
    groups = [(episodes[i].task.task_id, tuple(blocks[i])) for i in batch.episode_index.tolist()]
    # As a run does: rows without a block are computed as the student's.
    shared = shared_beginnings(rows, groups) if all(blocks) else None
    cut = teacher_micro_batches(step.micro_batches, rows.lengths(), most)
    return Work(policy, batch.rows, step.micro_batches), Work(policy, rows, cut, shared, groups)


def timed(kinds: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each; a round before the first warms up."""
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds + 1):
        for kind, run in kinds.items():
            started = time.process_time()
            run()
            if number:
                seconds[kind].append(time.process_time() - started)
    return {kind: statistics.median(values) for kind, values in seconds.items()}


def _product(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.mm(left, right)


def matrix_rate() -> float:
    """Operations a second of a large product."""
    left, right = torch.randn(RATE_SIZE, RATE_SIZE), torch.randn(RATE_SIZE, RATE_SIZE)
    best = min(timed({"product": lambda: _product(left, right)}, 1)["product"] for _ in range(3))
    return 2.0 * RATE_SIZE**3 / best


if __name__ == "__main__":
    main()
