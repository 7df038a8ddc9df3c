"""Seconds of an iteration by phase, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass

from sdar.policy.shape import ModelShape
from sdar.run.capacity.machine import VLLM_HOST_S, Device, Engine
from sdar.run.capacity.memory import Strategy
from sdar.run.capacity.work import Work

_SAMPLING_BYTES = 60
"""Read and written per logit of a decode step: softmax, cumulative sums in float64, the search."""
_STEP_BYTES = 28
"""Read and written per parameter of an optimizer step: weight, gradient and two moments, all float32."""


@dataclass(frozen=True)
class Plan:
    """An iteration, and where it runs.

    ``cards``          per node; ``nodes`` of them
    ``concurrent``     episodes that a process plays at once
    ``steps``          optimizer steps of an iteration
    ``micro_batch_tokens``  padded tokens of a pass of the update
    ``reused``         whether old log-probs come from the update's own pass (an iteration of one step)
    ``reference``      whether the KL term's reference is scored
    ``shared_blocks``  whether the teacher's block is computed once for all rows that begin with it
    ``checkpointing``  of activations
    ``environment_s``  of one step of one episode, spread over ``workers``
    ``serving_cards``  vllm server: how many of all cards play while the others wait
    ``split``          vllm: cards that share a copy of the weights while they play (tensor parallel)
    """

    shape: ModelShape
    work: Work
    device: Device
    strategy: Strategy = "one"
    engine: Engine = "own"
    cards: int = 1
    nodes: int = 1
    concurrent: int = 64
    steps: int = 1
    micro_batch_tokens: int = 16384
    compute_bytes: int = 2
    reused: bool = False
    reference: bool = True
    shared_blocks: bool = False
    checkpointing: bool = False
    environment_s: float = 0.0
    workers: int = 1
    serving_cards: int = 0
    split: int = 1

    @property
    def processes(self) -> int:
        """One per card that learns."""
        return self.cards * self.nodes - self.serving_cards

    @property
    def players(self) -> int:
        """Cards, or groups of them that share the weights, that play."""
        return (self.serving_cards or self.processes) // self.split

    def seconds(self) -> dict[str, float]:
        """Phase -> seconds."""
        work, shape = self.work, self.shape
        sampled = work.sampled_tokens
        row = shape.forward_flops(work.rows * work.row_tokens, work.row_tokens, sampled)
        passes = 4 if self.checkpointing else 3
        return {
            "prompts": self._computed(self._prompt_flops(), self.players * self.split),
            "decode": self._decoded(),
            "environment": work.responses * self.environment_s / self.workers,
            "weights to the players": self._pushed(),
            "old log-probs": 0.0 if self.reused else self._computed(row, self.processes),
            "reference": self._computed(row, self.processes) if self.reference else 0.0,
            "teacher": self._computed(self._teacher_flops(), self.processes),
            "update": self._computed(passes * row, self.processes),
            "exchange": self._exchanged(),
            "optimizer": self.steps * _STEP_BYTES * shape.parameters / self._share / self.device.bandwidth,
        }

    def total(self) -> float:
        """Seconds of an iteration; phases do not overlap."""
        return sum(self.seconds().values())

    def bottleneck(self) -> str:
        """The phase that takes longest, and its share."""
        seconds = self.seconds()
        phase = max(seconds, key=lambda name: seconds[name])
        return f"{phase} ({seconds[phase] / self.total():.0%})"

    @property
    def _share(self) -> int:
        return self.processes if self.strategy == "fsdp2" else 1

    def _computed(self, flops: float, cards: int) -> float:
        return flops / cards / (self.device.flops * self.device.compute_share)

    def _teacher_flops(self) -> float:
        work = self.work
        if work.teacher_tokens == 0:
            return 0.0
        shared = work.teacher_tokens if self.shared_blocks else 0.0
        whole = work.row_tokens + work.teacher_tokens
        # What is not shared attends to what is.
        return self.shape.forward_flops(work.rows * (whole - shared), whole + shared, work.sampled_tokens)

    def _prompt_flops(self) -> float:
        work = self.work
        if work.context == "append":
            # A message is read over all of the conversation before it.
            return self.shape.forward_flops(work.prompt_tokens, 2 * work.played_context, work.responses)
        return self.shape.forward_flops(work.prompt_tokens, work.prompt_tokens / work.responses, work.responses)

    def _rows(self) -> float:
        """Rows of a decode step: all live episodes of a wave, those whose response has ended included."""
        work = self.work
        played = work.episodes / self.players / work.waves(self.concurrent, self.players)
        return played * work.turns / work.longest_turns

    def _step_bytes(self) -> float:
        cache = self.shape.cache_bytes(self.compute_bytes) * self.work.played_context * self._rows()
        weights = self.compute_bytes * (self.shape.layer_products + self.shape.head)
        return weights + cache

    def _decode_steps(self) -> float:
        return (
            self.work.waves(self.concurrent, self.players) * self.work.longest_turns * float(self.work.longest_response)
        )

    def _decoded(self) -> float:
        device, shape, rows = self.device, self.shape, self._rows()
        read = self._step_bytes() / (device.bandwidth * device.bandwidth_share)
        computed = self._computed(rows * shape.forward_flops(1, 2 * self.work.played_context, 1), cards=1)
        step = max(read, computed) / self.split + _SAMPLING_BYTES * shape.vocabulary * rows / device.bandwidth
        if self.engine.startswith("vllm"):
            step += VLLM_HOST_S
        else:
            step += shape.layers * (device.captured_s if self.engine == "own, captured" else device.layer_s)
        return self._decode_steps() * step

    def _pushed(self) -> float:
        """Whole weights to those who play: gathered from shares, or sent to a server of another node."""
        size = self.compute_bytes * self.shape.parameters
        if self.engine == "vllm server":
            return size / self.device.network
        return size / self._link if self.strategy == "fsdp2" else 0.0

    @property
    def _link(self) -> float:
        return self.device.link if self.nodes == 1 else self.device.network

    def _exchanged(self) -> float:
        """DDP: gradients once per step. FSDP2: weights twice and gradients once per pass of the update."""
        others = (self.processes - 1) / self.processes
        size = self.shape.parameters * others / self._link
        if self.strategy == "ddp":
            return self.steps * 2 * 4 * size
        if self.strategy == "fsdp2":
            tokens = self.work.rows * self.work.row_tokens / self.processes
            passes = max(float(self.steps), tokens / self.micro_batch_tokens)
            return passes * (2 * self.compute_bytes + 4) * size
        return 0.0
