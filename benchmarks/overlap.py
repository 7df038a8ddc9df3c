"""What does it save to sample one half of the episodes while the environment answers the other (``rollout.overlap``)?

    python benchmarks/overlap.py [--delays 0 0.1 0.3 1] [--each] [--episodes 48] [--hidden-size 512 --layers 14]

ALFWorld is played, whose every step takes so many seconds longer: one of all episodes together, as that of a server
that is asked in batches, or with ``--each`` as if so many episodes took their steps one after the other. With and
without overlap take turns. Figures are wall-clock seconds, since waiting is what is saved: run it beside nothing else.
Without sizes the shipped tiny model plays; with them a Qwen3 with random weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from rollout_backends import random_model

from sdar.environments.alfworld.environment import AlfworldEnvironment
from sdar.environments.base import EnvironmentPool
from sdar.episode import Observation, StepOutcome, Task
from sdar.policy.language_model import tiny_model
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.settings import RolloutSettings, SamplingConfig


class SlowPool(EnvironmentPool):
    """A pool whose steps take longer."""

    batched = True

    def __init__(self, pool: EnvironmentPool, delay_s: float, episodes: int | None) -> None:
        self.pool, self.delay_s, self.episodes = pool, delay_s, episodes

    def reset(self, tasks: list[Task]) -> list[Observation | StepOutcome]:  # type: ignore[override]
        """Those of the pool."""
        return self.pool.reset(tasks)

    def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Wait, then step."""
        time.sleep(self.delay_s if self.episodes is None else self.delay_s * len(actions) / self.episodes)
        return self.pool.step(actions)


class SlowAlfworld(AlfworldEnvironment):
    """ALFWorld behind a slow connection."""

    delay_s = 0.0
    episodes: int | None = None
    """That take ``delay_s`` together, one after the other; None: it is that of any step."""

    def open_pool(self) -> EnvironmentPool:
        """A slow one."""
        return SlowPool(super().open_pool(), self.delay_s, self.episodes)


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 0.1, 0.3, 1.0], help="seconds a step")
    parser.add_argument("--each", action="store_true", help="a step of half the episodes takes half as long")
    parser.add_argument("--episodes", type=int, default=48)
    parser.add_argument("--turns", type=int, default=6, help="most responses of an episode")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hidden-size", type=int, help="of a model with random weights")
    parser.add_argument("--layers", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    policy = tiny_model("alfworld")
    if options.hidden_size is not None:
        policy = replace(policy, model=random_model(policy, options.hidden_size, options.layers), name="random weights")
    environment = SlowAlfworld(max_turns=options.turns)
    tasks = environment.tasks("train")
    requests = [EpisodeRequest(task, member) for task in tasks[: -(-options.episodes // 8)] for member in range(8)]
    environment.episodes = len(requests) if options.each else None
    count = sum(parameter.numel() for parameter in policy.model.parameters())
    print(f"{policy.name}, {count / 1e6:.2f} M parameters, {len(requests)} episodes, at most {options.turns} turns")
    print("seconds a step   whole   halves   halves / whole")
    for environment.delay_s in options.delays:
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for number in range(options.rounds):
            for overlap in (False, True) if number % 2 else (True, False):
                settings = RolloutSettings(overlap=overlap, sampling=SamplingConfig(max_response_tokens=48))
                started = time.perf_counter()
                Collector(policy, environment, settings).collect(requests, seed=1, key=("benchmark", number))
                seconds[overlap].append(time.perf_counter() - started)
        whole, halves = (statistics.median(seconds[overlap]) for overlap in (False, True))
        print(f"{environment.delay_s:14g} {whole:7.2f} {halves:8.2f} {halves / whole:16.2f}", flush=True)


if __name__ == "__main__":
    main()
