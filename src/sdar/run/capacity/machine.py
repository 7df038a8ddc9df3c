"""What devices and engines do, each number with its source. Only ``CPU`` has been measured by us."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Engine = Literal["own", "own, captured", "vllm colocated", "vllm server"]
"""Who plays. vLLM was run on CPUs alone."""


@dataclass(frozen=True)
class Device:
    """One card, or one CPU core.

    ``flops``            peak of matrix products, operations per second, in the dtype of the run
    ``compute_share``    of it that passes over whole rows reach
    ``bandwidth``        bytes per second of its memory
    ``bandwidth_share``  of it that decoding reaches
    ``memory``           bytes
    ``layer_s``          least seconds of a layer in a pass over one token per row, started operation by operation
    ``captured_s``       the same, captured as a CUDA graph
    ``link``             bytes per second to the other cards of its node
    ``network``          bytes per second to another node
    """

    name: str
    flops: float
    compute_share: float
    bandwidth: float
    bandwidth_share: float
    memory: float
    layer_s: float
    captured_s: float
    link: float
    network: float


H100 = Device("H100 SXM, 80 GB", 989.4e12, 0.30, 3.35e12, 0.6, 80e9, 700e-6, 60e-6, 450e9, 50e9)
H200 = Device("H200 SXM, 141 GB", 989.4e12, 0.30, 4.8e12, 0.6, 141e9, 700e-6, 60e-6, 450e9, 50e9)
A100 = Device("A100 SXM, 80 GB", 312e12, 0.40, 2.039e12, 0.6, 80e9, 700e-6, 60e-6, 300e9, 25e9)

CPU = Device("a core of a shared server, float32", 55e9, 0.5, 10e9, 1.0, 16e9, 3.2e-3, 3.2e-3, 1e9, 1e9)
"""Not a card: for the check against what was measured. Bandwidth, memory and links are placeholders that decide nothing
there."""

CARDS = {"h100": H100, "h200": H200, "a100": A100}

VLLM_HOST_S = 5.0e-3
"""Seconds of a decode step of vLLM in which the card neither reads nor computes."""

SOURCES = {
    "flops, bandwidth, memory, link": "NVIDIA's data sheets of H100, H200 and A100 (SXM): bfloat16 without sparsity; "
    "NVLink in one direction",
    "network": "400 Gb/s of InfiniBand per card (A100: 200), one direction",
    "compute_share of H100": "the original's scoring of old log-probs, 17.6 s on four H100 (3B, ALFWorld, first step)",
    "flops of CPU": "measured: product of two float32 matrices of 1,024 by 1,024, CPU seconds",
    "compute_share of CPU": "solved from 0.88 s of scoring the reference (docs/results.md, what the teacher "
    "costs, GRPO)",
    "layer_s of CPU": "solved from 3.09 s of generation (the same, SDAR)",
    "compute_share of A100": "assumed: less is lost on a slower card",
    "bandwidth_share": "assumed, no card was at hand",
    "layer_s": "assumed: about 45 kernels per layer at 8 to 20 us each, as Python and the driver start them",
    "captured_s": "assumed: the same kernels, one after another on the card",
    "VLLM_HOST_S": "solved from the original's 202 s of generation, less prompts and environment",
}
