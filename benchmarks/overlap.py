"""What does it save to sample one half of the episodes while the environment answers the other (``rollout.overlap``)?

    python benchmarks/overlap.py [--delays 0 0.03 0.06 0.1 0.3] [--each] [--busy] [--hidden-size 512 --layers 14]

ALFWorld is played with steps that take longer, by so many seconds for all episodes of a turn. By default a step waits
that long however few episodes it has, as one that asks a server in batches does. With ``--each`` half the episodes take
half as long, as if each waited for an answer of its own. With ``--busy`` a step computes in Python instead of waiting.
With and without overlap take turns. Figures are wall-clock seconds, since waiting is what is saved: run nothing else
beside it. Without sizes the shipped tiny model plays; with them a Qwen3 with random weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rollout_backends import add_sizes, sized

from sdar.environments.alfworld.environment import AlfworldEnvironment
from sdar.environments.base import EnvironmentPool
from sdar.episode import Observation, StepOutcome, Task
from sdar.policy.language_model import tiny_model
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.settings import RolloutSettings, SamplingConfig


@dataclass
class Delay:
    """Seconds that a step takes longer; ``episodes``: of so many episodes, fewer take less; None: of any number."""

    seconds: float = 0.0
    episodes: int | None = None
    busy: bool = False

    def spend(self, episodes: int) -> None:
        """Wait, or compute."""
        seconds = self.seconds if self.episodes is None else self.seconds * episodes / self.episodes
        if not self.busy:
            time.sleep(seconds)
            return
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass


class SlowPool(EnvironmentPool):
    """A pool whose steps take longer."""

    batched = True

    def __init__(self, pool: EnvironmentPool, delay: Delay) -> None:
        self.pool, self.delay = pool, delay

    def reset(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        """Those of the pool."""
        return self.pool.reset(tasks)

    def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Take the time, then step."""
        self.delay.spend(len(actions))
        return self.pool.step(actions)

    def close(self) -> None:
        """Close the pool."""
        self.pool.close()


class SlowAlfworld(AlfworldEnvironment):
    """ALFWorld whose steps take longer."""

    delay = Delay()

    def open_pool(self) -> EnvironmentPool:
        """A slow one."""
        return SlowPool(super().open_pool(), self.delay)


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 0.03, 0.06, 0.1, 0.3], help="seconds a step")
    parser.add_argument("--each", action="store_true", help="half the episodes take half as long")
    parser.add_argument("--busy", action="store_true", help="compute instead of waiting")
    parser.add_argument("--episodes", type=int, default=48)
    parser.add_argument("--turns", type=int, default=6, help="most responses of an episode")
    parser.add_argument("--rounds", type=int, default=3)
    add_sizes(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    policy = sized(tiny_model("alfworld"), options)
    environment = SlowAlfworld(max_turns=options.turns)
    tasks = environment.tasks("train")
    requests = [EpisodeRequest(task, member) for task in tasks[: -(-options.episodes // 8)] for member in range(8)]

    def seconds(overlap: bool, number: int) -> float:
        settings = RolloutSettings(overlap=overlap, sampling=SamplingConfig(max_response_tokens=48))
        started = time.perf_counter()
        Collector(policy, environment, settings).collect(requests, seed=1, key=("benchmark", number))
        return time.perf_counter() - started

    count = sum(parameter.numel() for parameter in policy.model.parameters())
    print(f"{policy.name}, {count / 1e6:.2f} M parameters, {len(requests)} episodes, at most {options.turns} turns")
    seconds(False, 0)  # the first fills caches
    print("seconds a step   whole   halves   halves / whole")
    for delay in options.delays:
        environment.delay = Delay(delay, len(requests) if options.each else None, options.busy)
        found: dict[bool, list[float]] = {False: [], True: []}
        for number in range(options.rounds):
            for overlap in (False, True) if number % 2 else (True, False):
                found[overlap].append(seconds(overlap, number))
        whole, halves = statistics.median(found[False]), statistics.median(found[True])
        print(f"{delay:14g} {whole:7.2f} {halves:8.2f} {halves / whole:16.2f}", flush=True)


if __name__ == "__main__":
    main()
