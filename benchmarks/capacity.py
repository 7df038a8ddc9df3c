"""Seconds and memory of an iteration by arithmetic, for cards that nobody has to own.

    python benchmarks/capacity.py                   # the table: from 0.5B on one card to 70B on 64
    python benchmarks/capacity.py --check           # the arithmetic beside what was measured
    python benchmarks/capacity.py --model Qwen2.5-7B --trainer fsdp2 --cards 8 --nodes 2 --episodes 512 --context append

Constants and their sources are in ``src/sdar/run/capacity/machine.py``. Nothing is run.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from sdar.rollout.settings import DecodeSettings
from sdar.run.capacity.machine import CARDS, CPU, H100, SOURCES, Device, Engine
from sdar.run.capacity.memory import MemoryPlan, Strategy
from sdar.run.capacity.seconds import Plan
from sdar.run.capacity.shapes import DEFAULT, PAPER_APPEND, PAPER_WINDOW, SHAPES, SHIPPED
from sdar.run.capacity.work import Work

STEP_ROWS = 256
"""Rows of an optimizer step, as in the paper's ALFWorld run."""
ENVIRONMENT_S = 0.05
"""Of a step of the published engine (docs/results.md: 64 ms with its text); ours takes 0.011 ms."""

Row = tuple[str, str, Engine, str, int, int, int]

ROWS: tuple[Row, ...] = (
    # model, trainer, engine, context, episodes, cards, nodes
    ("Qwen2.5-0.5B", "gpu", "own", "window", 128, 1, 1),
    ("Qwen2.5-1.5B", "gpu", "own", "window", 128, 1, 1),
    ("Qwen2.5-3B", "gpu", "own", "window", 128, 1, 1),
    ("Qwen2.5-3B", "gpu", "own", "append", 128, 1, 1),
    ("Qwen2.5-3B", "ddp", "own", "window", 128, 4, 1),
    ("Qwen2.5-3B", "fsdp2", "own", "window", 128, 4, 1),
    ("Qwen2.5-3B", "fsdp2", "own", "append", 128, 4, 1),
    ("Qwen2.5-3B", "fsdp2", "own, captured", "window", 128, 4, 1),
    ("Qwen2.5-3B", "fsdp2", "vllm colocated", "window", 128, 4, 1),
    ("Qwen2.5-7B", "fsdp2", "own", "window", 128, 8, 1),
    ("Qwen2.5-7B", "fsdp2", "own", "append", 256, 8, 2),
    ("Qwen2.5-32B", "fsdp2", "own", "append", 512, 8, 4),
    ("Qwen2.5-32B", "fsdp2", "vllm colocated", "append", 512, 8, 4),
    ("Llama-3.1-70B", "fsdp2", "own", "append", 1024, 8, 8),
    ("Llama-3.1-70B", "fsdp2", "vllm colocated", "append", 1024, 8, 8),
    ("Llama-3.1-70B", "fsdp2", "vllm server", "append", 1024, 8, 8),
)

STRATEGIES: dict[str, Strategy] = {"gpu": "one", "ddp": "ddp", "fsdp2": "fsdp2"}

CHANGES = {
    "weights to compute with": "whole weights on a card; rollouts would have to split them (tensor parallel)",
    "activations": "one row's activations; the update would have to split rows (sequence parallel)",
}
"""What would have to be built where a part of the memory is too large."""

SPLIT = {"Qwen2.5-32B": 2, "Llama-3.1-70B": 8}
"""Cards that share the weights while vLLM plays; 1 otherwise."""


def plan(
    model: str, trainer: str, engine: Engine, work: Work, cards: int, nodes: int, device: Device = H100, split: int = 0
) -> tuple[Plan, MemoryPlan]:
    """The iteration, and what a card keeps in it: as many episodes at once as its memory allows, 128 at most."""
    vllm = engine.startswith("vllm")
    split = split or (SPLIT.get(model, 1) if vllm else 1)
    serving = cards * nodes // 2 if engine == "vllm server" else 0
    processes = cards * nodes - serving
    strategy = STRATEGIES[trainer]
    micro_batch = max(16384, int(work.row_tokens))
    memory = MemoryPlan(
        shape=SHAPES[model],
        parameters=SHAPES[model].parameters,
        trained=SHAPES[model].parameters,
        copies=1,
        strategy=strategy,
        processes=processes,
        weight_bytes=4,
        trained_bytes=4,
        compute_bytes=2,
        cast=SHAPES[model].parameters,
        moment_bytes=8.0,
        rows=max(1, min(128, work.episodes * split // processes)),
        row_tokens=work.longest_context,
        prompt_tokens=work.observation_tokens if work.context == "window" else work.opening_tokens / 8,
        prefill_tokens=DecodeSettings().prefill_tokens,
        micro_batch_tokens=micro_batch,
        checkpointing=True,
        card_bytes=device.memory,
        play_split=split,
    )
    while memory.rows > 1 and memory.peak("play") > device.memory:
        memory = replace(memory, rows=memory.rows // 2)
    seconds = Plan(
        SHAPES[model],
        work,
        device,
        strategy,
        engine,
        cards,
        nodes,
        concurrent=memory.rows,
        steps=max(1, round(work.rows / STEP_ROWS)),
        micro_batch_tokens=micro_batch,
        shared_blocks=strategy != "fsdp2",
        checkpointing=True,
        environment_s=ENVIRONMENT_S,
        workers=16 * nodes,
        serving_cards=serving,
        split=split,
    )
    # Cards that only learn keep no cache.
    return seconds, replace(memory, rows=0) if serving else memory


def needed(bottleneck: str, memory: MemoryPlan, device: Device) -> str:
    """What stands in the way next, and what in the code would have to change."""
    phase, size = memory.largest()
    if size <= device.memory:
        return bottleneck
    parts = {**memory.kept(), **memory.phases()[phase]}
    largest = max(parts, key=lambda name: parts[name])
    return f"does not fit ({phase}): {CHANGES.get(largest, largest)}"


def table(rows: tuple[Row, ...], device: Device) -> str:
    """A line each: seconds by phase, memory of a card, the next bottleneck."""
    head = f"{'model':<14}{'trainer':<8}{'engine':<16}{'context':<8}{'episodes':>8}{'at once':>8}{'cards':>6}"
    head += f"{'play':>8}{'score':>8}{'update':>8}{'rest':>7}{'total s':>9}{'GB':>7}  next"
    lines = [head]
    for model, trainer, engine, context, episodes, cards, nodes in rows:
        work = replace(PAPER_APPEND if context == "append" else PAPER_WINDOW, episodes=episodes)
        seconds, memory = plan(model, trainer, engine, work, cards, nodes, device)
        parts = seconds.seconds()
        play = parts["prompts"] + parts["decode"] + parts["environment"] + parts["weights to the players"]
        score = parts["old log-probs"] + parts["reference"] + parts["teacher"]
        rest = parts["exchange"] + parts["optimizer"]
        size = memory.largest()[1] / 1e9
        lines.append(
            f"{model:<14}{trainer:<8}{engine:<16}{context:<8}"
            f"{episodes:>8}{seconds.concurrent:>8}{f'{nodes}x{cards}':>6}"
            f"{play:>8.0f}{score:>8.0f}{parts['update']:>8.0f}{rest:>7.0f}{seconds.total():>9.0f}{size:>7.0f}"
            f"  {needed(seconds.bottleneck(), memory, device)}"
        )
    return "\n".join(lines)


ORIGINAL = {
    "generation": 202.0,
    "teacher": 44.6,
    "old log-probs": 17.6,
    "reference": 20.0,
    "update": 75.0,
    "total": 362.0,
}
"""Seconds of the first iteration of an independent run of the release: ALFWorld, 3B, four H100."""


def original() -> dict[str, float]:
    """The same iteration by this arithmetic: vLLM with its weights split over two cards, FSDP over four."""
    seconds, _ = plan("Qwen2.5-3B", "fsdp2", "vllm colocated", PAPER_WINDOW, 4, 1, split=2)
    parts = replace(seconds, workers=64).seconds()
    generation = parts["prompts"] + parts["decode"] + parts["environment"] + parts["weights to the players"]
    update = parts["update"] + parts["exchange"] + parts["optimizer"]
    scored = {name: parts[name] for name in ("teacher", "old log-probs", "reference")}
    return {"generation": generation, "update": update, **scored}


DEFAULT_RUN = {"generation": 3.09, "reference and teacher": 1.97, "update": 3.00}
"""Seconds of an iteration of the default on one thread (docs/results.md, what the teacher costs)."""


def default_run() -> dict[str, float]:
    """The same by this arithmetic."""
    parts = Plan(
        SHIPPED, DEFAULT, CPU, compute_bytes=4, concurrent=64, reused=True, shared_blocks=True, micro_batch_tokens=4096
    ).seconds()
    return {
        "generation": parts["prompts"] + parts["decode"],
        "reference and teacher": parts["reference"] + parts["teacher"],
        "update": parts["update"] + parts["optimizer"],
    }


def beside(title: str, measured: dict[str, float], found: dict[str, float], solved: str) -> str:
    """Measured seconds, those of the arithmetic, and their ratio."""
    lines = [f"{title}\n{'phase':<24}{'measured':>10}{'arithmetic':>12}{'ratio':>8}"]
    totals = {"total": sum(found.values())}
    for name, seconds in {**measured, "total": measured.get("total", sum(measured.values()))}.items():
        own = {**found, **totals}[name]
        lines.append(f"{name:<24}{seconds:>10.2f}{own:>12.2f}{own / seconds:>8.2f}")
    return "\n".join([*lines, f"solved from this very run, so no test of the arithmetic: {solved}"])


def check() -> str:
    """The arithmetic beside the original's first iteration, and beside our default run on a CPU."""
    four = beside("3B on four H100, the original", ORIGINAL, original(), "generation, teacher, old log-probs")
    one = beside("the default on one CPU core", DEFAULT_RUN, default_run(), "generation, the reference's share of 1.97")
    return f"{four}\n\n{one}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="beside what was measured")
    parser.add_argument("--device", choices=CARDS, default="h100")
    parser.add_argument("--model", choices=SHAPES, help="one line, with the following")
    parser.add_argument("--trainer", choices=("gpu", "ddp", "fsdp2"), default="gpu")
    parser.add_argument("--engine", choices=("own", "own, captured", "vllm colocated", "vllm server"), default="own")
    parser.add_argument("--context", choices=("window", "append"), default="window")
    parser.add_argument("--episodes", type=int, default=128)
    parser.add_argument("--cards", type=int, default=1, help="per node")
    parser.add_argument("--nodes", type=int, default=1)
    options = parser.parse_args()
    device = CARDS[options.device]
    if options.check:
        print(check())
        return
    rows = ROWS
    if options.model:
        o = options
        rows = ((o.model, o.trainer, o.engine, o.context, o.episodes, o.cards, o.nodes),)
    print(f"{device.name}, bf16-mixed, activations recomputed; arithmetic, not measured\n")
    print(table(rows, device))
    print("\n" + "\n".join(f"{name}: {source}" for name, source in SOURCES.items()))


if __name__ == "__main__":
    main()
