"""What a GPU does with this code: equality with the CPU, seconds by phase, decode and update against what it could do.

    python benchmarks/gpu.py [--out gpu.json] [--budget 460]
    python benchmarks/gpu.py --device cpu --tiny            # the same path with tiny shapes

Each part runs in a process of its own within a time of its own, and writes what it has found after every figure: one
that fails, or runs out of memory or time, is reported and the rest goes on. Neither network nor a pretrained model is
needed: models have random weights in the shape of Qwen2.5, and responses always run to their limit. It was written
without a card; no figure of it has been recorded.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

PARTS = {"machine": 60, "equality": 90, "default": 90, "0.5B": 110, "1.5B": 130, "3B": 150}
"""Name -> seconds that it may take."""
MODELS = {"0.5B": "Qwen2.5-0.5B", "1.5B": "Qwen2.5-1.5B", "3B": "Qwen2.5-3B"}


@dataclass(frozen=True)
class Scale:
    """Lengths of a measurement.

    ``rows``       conversations that decode at once; prompts of ``prompt`` tokens and responses of ``response``
    ``teacher``    tokens of the teacher's block
    ``tokens``     of a micro-batch
    ``tasks``      of a measured iteration, 8 episodes each, of ``turns`` turns
    ``matmul``     width of the square product that rates are compared with
    """

    rows: int
    prompt: int
    response: int
    teacher: int
    tokens: int
    tasks: int
    turns: int
    matmul: int


FULL = Scale(rows=128, prompt=480, response=135, teacher=943, tokens=16384, tasks=2, turns=3, matmul=8192)
TINY = Scale(rows=8, prompt=40, response=6, teacher=20, tokens=256, tasks=2, turns=2, matmul=128)
GROUP = 8
PAPER_TURNS, LONGEST_TURNS = 128 * 43, 50
"""Of all episodes of the paper's first iteration, and of the longest one."""


class Record:
    """Figures of a part, on disk after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.figures: dict[str, Any] = {}
        self.errors: dict[str, str] = {}
        self._write()

    def put(self, name: str, value: Any) -> None:
        self.figures[name] = value
        self._write()

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """A measurement whose failure is written down, and does not end the part."""
        import torch

        try:
            yield
        except Exception as error:  # whatever a card says
            traceback.print_exc()
            self.errors[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
            self._write()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _write(self) -> None:
        self.path.write_text(json.dumps({"figures": self.figures, "errors": self.errors}), encoding="utf-8")


class Meter:
    """Seconds and peak memory on a device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def wait(self) -> None:
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], repeats: int = 3) -> float:
        """The least of several times, after one to warm up."""
        work()
        best = float("inf")
        for _ in range(repeats):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            best = min(best, time.perf_counter() - started)
        return best

    def reset_peak(self) -> None:
        import torch

        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        import torch

        return torch.cuda.max_memory_allocated() / 1e9 if self.device == "cuda" else None


@dataclass(frozen=True)
class Bench:
    """What a part measures with; ``known`` are the figures of the part ``machine``."""

    record: Record
    meter: Meter
    scale: Scale
    known: Mapping[str, Any]


def measure_machine(bench: Bench) -> None:
    """Versions, and what matrix products and copies reach."""
    import torch
    import transformers

    bench.record.put("python", platform.python_version())
    bench.record.put("torch", torch.__version__)
    bench.record.put("transformers", transformers.__version__)
    name = torch.cuda.get_device_name() if bench.meter.device == "cuda" else platform.processor() or platform.machine()
    bench.record.put("device", name)
    n = bench.scale.matmul
    for label, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with bench.record.attempt(f"matmul {label}"):
            a = torch.randn(n, n, device=bench.meter.device, dtype=dtype)
            bench.record.put(f"matmul_{label}_tflops", 2 * n**3 / bench.meter.seconds(lambda a=a: a @ a) / 1e12)
    with bench.record.attempt("copy"):
        a = torch.empty(8 * n * n, device=bench.meter.device)
        bench.record.put("copy_gb_per_s", 2 * a.numel() * 4 / bench.meter.seconds(lambda: a.clone()) / 1e9)


def measure_equality(bench: Bench) -> None:
    """The shipped model's log-probs on the device and on the CPU, and one iteration on both."""
    import torch

    from sdar.policy.language_model import tiny_model
    from sdar.policy.log_probs import score_tokens

    model = tiny_model("alfworld").model
    ids = torch.randint(4, 900, (8, 256), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)
    scored = mask.clone()
    scored[:, 0] = False

    def scores(device: str, mixed: bool) -> Any:
        model.to(device)
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=mixed):
            return score_tokens(model, ids.to(device), mask.to(device), scored.to(device)).log_probs.cpu()

    plain = scores("cpu", False)
    for name, mixed in (("fp32", False), ("bf16", True)):
        with bench.record.attempt(f"log-probs {name}"):
            apart = (scores(bench.meter.device, mixed) - plain).abs()
            bench.record.put(f"log_probs_{name}_largest", float(apart.max()))
            bench.record.put(f"log_probs_{name}_mean", float(apart.mean()))
    with bench.record.attempt("one iteration"):
        one = [*_few(bench), "trainer.max_epochs=1"]
        first, second = (_iterations(device, one)[0] for device in ("cpu", bench.meter.device))
        names = [n for n in first if not n.startswith(("time/", "throughput/")) and n in second]
        apart_by = {n: abs(first[n] - second[n]) / max(abs(first[n]), 1e-3) for n in names}
        worst = max(apart_by, key=lambda n: apart_by[n])
        bench.record.put("iteration_metrics_compared", len(names))
        bench.record.put("iteration_metrics_equal_to_1e-3", sum(value <= 1e-3 for value in apart_by.values()))
        bench.record.put("iteration_metrics_worst", f"{worst}: {first[worst]:g} on the CPU, {second[worst]:g}")


def measure_default(bench: Bench) -> None:
    """The default run of the tiny model."""
    count = 2 if bench.scale is TINY else 4
    for precision in ("32-true", "bf16-mixed"):
        with bench.record.attempt(precision):
            bench.meter.reset_peak()
            settings = [f"trainer.max_epochs={count}", f"trainer.precision={precision}"]
            curve = _iterations(bench.meter.device, [*_few(bench), *settings])
            for name in PHASES:
                bench.record.put(f"{precision} {name}", min(metrics[f"time/{name}"] for metrics in curve[1:]))
            bench.record.put(f"{precision} success_rate", curve[-1]["rollout/success_rate"])
            bench.record.put(f"{precision} peak_gb", bench.meter.peak_gb())


def _few(bench: Bench) -> list[str]:
    return ["experiment=smoke"] if bench.scale is TINY else []


PHASES = ("generate_s", "environment_s", "score_s", "update_s")


def _iterations(device: str, overrides: Sequence[str]) -> list[dict[str, float]]:
    """Metrics of each iteration of a run of the command line's settings."""
    import lightning

    import sdar

    curve: list[dict[str, float]] = []

    class Keep(lightning.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            curve.append(dict(module.report.metrics))

    with tempfile.TemporaryDirectory() as folder:
        base = ["logger=none", "evaluation.panel_size=6", f"run_dir={folder}"]
        settings = sdar.compose([*base, "trainer=cpu", *overrides])
        assembly = sdar.assemble(settings)
        trainer = lightning.Trainer(
            max_epochs=settings.trainer["max_epochs"],
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision=settings.trainer["precision"],
            callbacks=[Keep()],
            **QUIET,
        )
        trainer.fit(assembly.module, datamodule=assembly.datamodule)
    return curve


QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def measure_model(bench: Bench, name: str) -> None:
    """Decoding, scoring, updating, and iterations of a model with random weights."""
    import torch

    shape = _shape(name, bench.scale)
    bench.record.put("parameters", shape.parameters)
    policy = _policy(shape, bench.meter.device)
    with bench.record.attempt("decode"):
        _decode(bench, policy, shape)
    with bench.record.attempt("score"):
        work = _scoring(policy.model, bench.scale, bench.meter.device)
        rows = bench.scale.tokens // (bench.scale.prompt + bench.scale.response)
        flops = _flops(shape, bench.scale, rows)
        with torch.no_grad():
            _rate(bench, "score", flops, bench.meter.seconds(work))
    for checkpointing in (False, True):
        label = "update, recomputed" if checkpointing else "update"
        with bench.record.attempt(label):
            bench.meter.reset_peak()
            _recompute(policy.model, checkpointing)
            rows = bench.scale.tokens // (bench.scale.prompt + bench.scale.response)
            work = _scoring(policy.model.train(), bench.scale, bench.meter.device, backward=True)
            seconds = bench.meter.seconds(work, repeats=2)
            # Recomputing is no useful work: the rate counts forward and backward alone.
            _rate(bench, label, 3 * _flops(shape, bench.scale, rows), seconds)
            bench.record.put(f"{label} peak_gb", bench.meter.peak_gb())
        policy.model.zero_grad(set_to_none=True)
    for context in ("window", "append"):
        with bench.record.attempt(f"iteration, {context}"):
            bench.meter.reset_peak()
            _iterate(bench, policy, context)
            bench.record.put(f"iteration, {context} peak_gb", bench.meter.peak_gb())
        policy.model.zero_grad(set_to_none=True)
    with bench.record.attempt("lora"):
        _lora(bench, policy, shape)


def _shape(name: str, scale: Scale) -> Any:
    from dataclasses import replace

    from sdar.run.capacity.shapes import SHAPES

    shape = SHAPES[MODELS[name]]
    if scale is TINY:
        heads = {"heads": 4, "kv_heads": 2, "head_dim": 8}
        return replace(shape, hidden=32, layers=2, intermediate=64, vocabulary=512, **heads)
    return shape


def _policy(shape: Any, device: str) -> Any:
    """A language model of a shape, float32 on the device, with a token for each of its ids."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from sdar.policy.chat import ChatFormat
    from sdar.policy.language_model import LanguageModel

    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=32768,
        tie_word_embeddings=shape.tied,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM(config)
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += [f"w{number}" for number in range(len(words), shape.vocabulary)]
    backend = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return LanguageModel(model, tokenizer, ChatFormat.from_tokenizer(tokenizer), 32768, "random", "random")


def _decode(bench: Bench, policy: Any, shape: Any) -> None:
    """Tokens per second of a batch's responses, prompts left out, against weights and cache over the bandwidth."""
    import numpy as np
    import torch

    from sdar.policy.generation import TurnGenerator

    numbers = np.random.default_rng(0)
    prompts = {row: numbers.integers(3, 250, bench.scale.prompt).tolist() for row in range(bench.scale.rows)}
    uniforms = {row: numbers.random(bench.scale.response) for row in range(bench.scale.rows)}

    def played(step: str, tokens: int) -> Callable[[], None]:
        generator = TurnGenerator(
            policy.model,
            pad_id=policy.pad_id,
            end_ids=(),
            max_response_tokens=tokens,
            compute_dtype=torch.bfloat16,
            step=step,
        )

        def play() -> None:
            generator.start(bench.scale.rows)
            generator.respond(prompts, uniforms)
            generator.close()

        return play

    bench.meter.reset_peak()
    prompted = bench.meter.seconds(played("plain", 1), repeats=1)
    bench.record.put("prompts tokens_per_s", bench.scale.rows * bench.scale.prompt / prompted)
    read = 2 * (shape.layer_products + shape.head)
    read += bench.scale.rows * shape.cache_bytes(2) * (bench.scale.prompt + bench.scale.response / 2)
    for step in ("plain", "fixed", "captured"):
        with bench.record.attempt(f"decode, {step}"):
            seconds = bench.meter.seconds(played(step, bench.scale.response), repeats=1) - prompted
            rate = bench.scale.rows * (bench.scale.response - 1) / seconds
            bench.record.put(f"decode, {step} tokens_per_s", rate)
            if "copy_gb_per_s" in bench.known:
                floor = bench.scale.rows * bench.known["copy_gb_per_s"] * 1e9 / read
                bench.record.put(f"decode, {step} share_of_floor", rate / floor)
    bench.record.put("decode peak_gb", bench.meter.peak_gb())


def _flops(shape: Any, scale: Scale, rows: int) -> float:
    row = scale.prompt + scale.response
    return float(shape.forward_flops(rows * row, row, rows * scale.response))


def _rate(bench: Bench, label: str, flops: float, seconds: float) -> None:
    bench.record.put(f"{label} tflops", flops / seconds / 1e12)
    if "matmul_bf16_tflops" in bench.known:
        bench.record.put(f"{label} share_of_matmul", flops / seconds / 1e12 / bench.known["matmul_bf16_tflops"])


def _scoring(model: Any, scale: Scale, device: str, backward: bool = False) -> Callable[[], None]:
    """Scores of a micro-batch of the paper's lengths."""
    import torch

    from sdar.policy.log_probs import score_tokens

    row = scale.prompt + scale.response
    ids = torch.randint(3, 250, (scale.tokens // row, row), device=device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    scored = torch.zeros_like(mask)
    scored[:, scale.prompt :] = True

    def work() -> None:
        with torch.autocast(device, torch.bfloat16):
            scores = score_tokens(model, ids, mask, scored).log_probs
            if backward:
                scores.sum().backward()

    return work


def _recompute(model: Any, on: bool) -> None:
    if on:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()


def _iterate(bench: Bench, policy: Any, context: str) -> None:
    """Two iterations of SDAR, the second of which counts, and what the paper's would take by their seconds a turn."""
    import lightning

    import sdar
    from sdar.learning.optimizer import OptimizerSettings
    from sdar.rollout.collector import Collector
    from sdar.rollout.settings import RolloutSettings, SamplingConfig
    from sdar.teacher.base import join

    environment, teacher = _world(bench.scale)
    join(teacher, environment, policy)
    rollout = RolloutSettings(
        tasks_per_iteration=bench.scale.tasks,
        group_size=GROUP,
        context=context,
        sampling=SamplingConfig(max_response_tokens=bench.scale.response),
    )
    method = sdar.Method()
    collector = Collector(policy, environment, rollout, teacher.reserved_tokens)
    data = sdar.RolloutDataModule(collector, environment, method, rollout, seed=1, teacher=teacher)
    settings = OptimizerSettings(max_tokens_per_micro_batch=bench.scale.tokens)
    module = sdar.SDARModule(policy, method, teacher, settings, rollout)
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="gpu" if bench.meter.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed",
        **QUIET,
    )
    trainer.fit(module, datamodule=data)
    module.to(bench.meter.device)
    metrics = module.report.metrics
    for name in PHASES:
        bench.record.put(f"iteration, {context} {name}", metrics[f"time/{name}"])
    bench.record.put(f"iteration, {context} sampler_mismatch", metrics["rollout/sampler_mismatch"])
    if bench.scale is FULL:
        # All episodes are decoded together, so decoding grows with turns in a row, the rest with their number.
        played = bench.scale.tasks * GROUP * bench.scale.turns
        estimate = metrics["time/generate_s"] * LONGEST_TURNS / bench.scale.turns
        estimate += (metrics["time/score_s"] + metrics["time/update_s"]) * PAPER_TURNS / played
        bench.record.put(f"iteration, {context} scaled_up_estimate_s", estimate)


def _world(scale: Scale) -> tuple[Any, Any]:
    """An environment whose prompts have the scale's length, and a teacher whose block has."""
    from sdar.environments.base import Environment, EnvironmentPool, Projection
    from sdar.episode import EndReason, Observation, StepOutcome, Task
    from sdar.teacher.base import Teacher
    from sdar.teacher.weights import TeacherWeights

    text = "x" * (scale.prompt - 20)

    class Pool(EnvironmentPool):
        def reset(self, tasks: Any) -> Any:
            self.turns = dict.fromkeys(range(len(tasks)), 0)
            return [Observation(text, None, "") for _ in tasks]

        def step(self, actions: Any) -> Any:
            return {slot: self._step(slot) for slot in actions}

        def _step(self, slot: int) -> Any:
            self.turns[slot] += 1
            won = self.turns[slot] == scale.turns and slot % 3 == 0
            end = EndReason.SUCCESS if won else None
            return StepOutcome(Observation(text[: len(text) // 2], None, ""), float(won), won, won, end=end)

    class Rooms(Environment):
        name = "lengths"
        max_turns = scale.turns

        def splits(self) -> Any:
            return ("train", "valid")

        def tasks(self, split: str) -> Any:
            return [Task(f"{split}-{n}", "one", text, split, f"{split}{n}", "") for n in range(scale.tasks)]

        def open_pool(self) -> Any:
            return Pool()

        def opening(self, task: Any, observation: Any) -> str:
            return observation.text

        def reply(self, observation: Any) -> str:
            return observation.text

        def window_prompt(self, task: Any, past: Any, observation: Any, step: int) -> str:
            return text

        def project(self, response: str) -> Any:
            return Projection("x", True)

    class Block(Teacher):
        weights = TeacherWeights()

        def privileged_text(self, task: Any, member: int = 0) -> str:
            return "s" * scale.teacher

    return Rooms(), Block()


def _lora(bench: Bench, policy: Any, shape: Any) -> None:
    """The update of adapters of rank 16 on bfloat16 weights."""
    import torch

    from sdar.policy.lora import LoraSettings, add_adapters

    bench.meter.reset_peak()
    _recompute(policy.model, False)
    policy.model.to(torch.bfloat16)
    add_adapters(policy.model, LoraSettings(rank=16, alpha=32), "random")
    rows = bench.scale.tokens // (bench.scale.prompt + bench.scale.response)
    work = _scoring(policy.model.train(), bench.scale, bench.meter.device, backward=True)
    # Backward through frozen weights takes as much as a forward pass: their own gradients are left out.
    _rate(bench, "update, lora", 2 * _flops(shape, bench.scale, rows), bench.meter.seconds(work, repeats=2))
    bench.record.put("update, lora peak_gb", bench.meter.peak_gb())


def run_part(name: str, out: Path, device: str, tiny: bool, known: Mapping[str, Any]) -> None:
    """Measure one part in this process."""
    import logging
    import warnings

    import torch
    import transformers

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    if device == "cpu":
        torch.set_num_threads(1)
    bench = Bench(Record(out), Meter(device), TINY if tiny else FULL, known)
    own = {"machine": measure_machine, "equality": measure_equality, "default": measure_default}
    if name in own:
        own[name](bench)
    else:
        measure_model(bench, name)


def run_parts(names: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Each part in a process of its own; what was found is written after each."""
    ends = time.monotonic() + options.budget
    found: dict[str, Any] = {"device": options.device, "tiny": options.tiny, "budget_s": options.budget, "parts": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            left = min(PARTS[name], ends - time.monotonic())
            file, started = Path(folder) / f"{name}.json", time.monotonic()
            state = "no time left"
            if left > 5:
                known = found["parts"].get("machine", {}).get("figures", {})
                words = ["--part", name, "--out", str(file), "--device", options.device, "--known", json.dumps(known)]
                words += ["--tiny"] if options.tiny else []
                state = _run([sys.executable, __file__, *words], left)
            part = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"figures": {}, "errors": {}}
            found["parts"][name] = {**part, "state": state, "seconds": time.monotonic() - started}
            options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(f"{name}: {state}, {time.monotonic() - started:.0f} s", flush=True)
    return found


def _run(command: Sequence[str], seconds: float) -> str:
    try:
        done = subprocess.run(command, timeout=seconds, check=False, stdout=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s"
    return "done" if done.returncode == 0 else f"failed with code {done.returncode}"


def table(found: Mapping[str, Any]) -> str:
    """A line for each figure, and for each thing that failed."""
    lines = []
    for name, part in found["parts"].items():
        lines.append(f"{name} ({part['state']})")
        for figure, value in part["figures"].items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append(f"  {figure:<44} {shown}")
        lines += [f"  {what:<44} FAILED: {error}" for what, error in part["errors"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, for a CPU")
    parser.add_argument("--budget", type=float, default=460.0, help="seconds in all")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of these, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--known", type=json.loads, default={}, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        run_part(options.part, options.out, options.device, options.tiny, options.known)
        return
    names = options.parts.split(",")
    if unknown := sorted(set(names) - PARTS.keys()):
        parser.error(f"--parts must be among {', '.join(PARTS)}, got {', '.join(unknown)}")
    found = run_parts(names, options)
    print("\n" + table(found))
    if failed := [name for name, part in found["parts"].items() if part["state"] != "done" or part["errors"]]:
        raise SystemExit(f"error: not all was measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
