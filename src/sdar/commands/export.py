"""``sdar export ckpt_path=PATH out=FOLDER``: a trained model as a Hugging Face folder.

The folder holds the model (adapters merged), the tokenizer with its chat template, generation settings and a model
card. The command loads the written folder with transformers alone and compares log-probs before it succeeds.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdar.config.command_line import CommandLine, parse_command_line
from sdar.config.paths import at_home
from sdar.config.plugins import allowing
from sdar.errors import UserError, command, run_command
from sdar.run.folder import CONFIG_FILE, RUN_FILE, read_record, run_config

USAGE = """\
usage: sdar export ckpt_path=PATH out=FOLDER [model=... model.SETTING=...] [--config-dir DIR] [--allow PACKAGE]

Writes a run's checkpoint as a Hugging Face folder for AutoModelForCausalLM and AutoTokenizer.
The model is the one in the checkpoint's run folder (config.yaml). For a checkpoint outside its run folder, set the
model as for training.
"""

_TOLERANCE = {"torch.float32": 1e-4, "torch.bfloat16": 0.25, "torch.float16": 0.03}
"""Largest accepted difference of a log-prob to the trained policy's, in nats, by dtype: merging rounds to the dtype."""

_PROBE = (
    "You are in the middle of a room. Looking quickly around you, you see a cabinet 1 and a desk 2. Your task is to:"
)


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    line = parse_command_line(arguments)
    with allowing(line.allow):
        return _export(line)


def _export(line: CommandLine) -> int:
    checkpoint, out, model = _request(line)
    import transformers  # takes seconds, and mistakes are told before

    transformers.utils.logging.disable_progress_bar()
    error = export(checkpoint, out, model)
    print(f"log-probs of the written folder differ from the trained model's by {error:.2g} nats at most")
    return 0


def _request(line: CommandLine) -> tuple[Path, Path, dict[str, Any]]:
    """Checkpoint, folder and settings of the model, checked as far as possible without the model."""
    given = [argument.partition("=") for argument in line.overrides]
    own = {name: value for name, _, value in given if name in ("ckpt_path", "out")}
    overrides = ["".join(words) for words in given if words[0] not in own]
    for name in ("ckpt_path", "out"):
        if not own.get(name):
            raise UserError(f"{name} is missing: sdar export ckpt_path=PATH out=FOLDER")
    checkpoint, out = Path(at_home(own["ckpt_path"])), Path(at_home(own["out"]))
    if not checkpoint.is_file():
        reason = " (a directory: a sharded checkpoint?)" if checkpoint.is_dir() else ""
        raise UserError(f"ckpt_path must be the file of a checkpoint, got {checkpoint}{reason}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out must be a new or empty folder, got {out}")
    from sdar.run.parts import compose_parts, part

    if overrides:
        return checkpoint, out, part(compose_parts(overrides, ("model",), config_dir=line.config_dir), "model")
    settings = run_config(checkpoint)
    if settings is None:
        raise UserError(
            f"ckpt_path={checkpoint} is not in a run folder with a {CONFIG_FILE}; set its model, as in model=hf "
            "model.name=NAME"
        )
    return checkpoint, out, part(settings, "model")


def export(checkpoint: Path, out: Path, model: Mapping[str, Any]) -> float:
    """Write the folder ``out`` and return the largest difference of a log-prob, in nats.

    UserError: the checkpoint does not fit the model, or the written folder does not reproduce it.
    """
    from sdar.commands.players import load_weights
    from sdar.config.build import build
    from sdar.policy.checkpoint import finished_iterations
    from sdar.policy.checkpoint_file import read_checkpoint
    from sdar.policy.language_model import LanguageModel
    from sdar.policy.lora import merge_adapters, take_adapters

    policy: LanguageModel = build(model, "model")
    load_weights(policy, checkpoint)
    iterations = finished_iterations(read_checkpoint(checkpoint, mmap=True))
    ids, expected = _scores(policy)
    moved = ""
    if policy.quantization is not None:
        if model.get("quantization") is None:
            raise UserError(
                f"ckpt_path={checkpoint}: adapters cannot be merged into {policy.name!r}, whose weights are stored "
                f"quantized ({policy.quantization}); export a run of the model's whole weights"
            )
        trained, policy = policy, build({**model, "quantization": None}, "model")
        take_adapters(policy.model, trained.model)
        quantized, (_, expected) = expected, _scores(policy)
        moved = (
            f"merged into whole weights: log-probs differ from those of the {trained.quantization} policy by "
            f"{float((expected - quantized).abs().max()):.2g} nats at most on a probe"
        )
        print(moved)
        del trained
    if policy.lora is not None:
        merge_adapters(policy.model)
    generation = policy.model.generation_config
    # The template's end token first, then the others at which the loaded model stops.
    ends = [policy.chat.end_id, *sorted(policy.chat.end_ids - {policy.chat.end_id})]
    generation.eos_token_id, generation.pad_token_id = ends if ends[1:] else ends[0], policy.pad_id
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        policy.model.save_pretrained(str(partial))
        policy.tokenizer.save_pretrained(str(partial))
        (partial / "README.md").write_text(_card(checkpoint, model, policy, iterations, moved), encoding="utf-8")
        error = _check(partial, policy, ids, expected, trust=model.get("trust_remote_code") is True)
        if out.exists():
            out.rmdir()  # empty, or it would have been refused
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{policy.name} after {iterations} iterations is in {out}")
    return error


def _scores(policy: Any) -> tuple[Any, Any]:
    """A probe [1, T], and the log-probs [1, T - 1] of its tokens as the run scores them."""
    import torch

    from sdar.policy.log_probs import score_tokens

    opening, _ = policy.chat.opening(_PROBE)
    ids = torch.tensor([[*opening, *policy.chat.privileged("go to desk 2"), policy.chat.end_id]])
    ids = ids[:, -policy.context_tokens :]
    real = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        return ids, score_tokens(policy.model, ids, real, real & (torch.arange(ids.shape[1]) > 0)).log_probs[:, 1:]


def _check(folder: Path, policy: Any, ids: Any, expected: Any, *, trust: bool) -> float:
    """Load the folder with transformers alone. UserError unless it reproduces the trained model.

    ``trust``: the user allows code that came with the model, and was run already.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sdar.policy.chat_template import ChatTemplate

    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust)
    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=policy.model.dtype, trust_remote_code=trust)
    with torch.no_grad():
        log_probs = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[:, :-1].float(), dim=-1)
    error = float((log_probs.gather(-1, ids[:, 1:, None]).squeeze(-1) - expected).abs().max())
    messages = [{"role": "user", "content": _PROBE}]
    # Not as of today: the clock may strike twelve between the two.
    rendered, own = (
        t.encode(ChatTemplate(t, policy.chat.enable_thinking).render(messages), add_special_tokens=False)
        for t in (tokenizer, policy.tokenizer)
    )
    if not error <= _TOLERANCE[str(policy.model.dtype)] or rendered != own:
        raise UserError(
            f"out={folder}: the written model is not the trained model (log-probs differ by {error:.3g} nats, the chat "
            f"template {'differs' if rendered != own else 'is the same'}); it was removed"
        )
    return error


_UNKNOWN = "unknown"


def _told(record: Any, *names: str) -> str:
    """A number or one line of text inside nested mappings. Unknown: it is not there, or something else is."""
    for name in names:
        record = record.get(name) if isinstance(record, Mapping) else None
    text = str(record) if isinstance(record, str | int) else ""
    return text if text and text.isprintable() else _UNKNOWN


def _card(checkpoint: Path, model: Mapping[str, Any], policy: Any, iterations: int, moved: str) -> str:
    settings, record = run_config(checkpoint) or {}, read_record(checkpoint.resolve().parent.parent / RUN_FILE) or {}
    revision = _told(record, "git", "revision")
    rows = {
        "base": f"{policy.name} ({policy.architecture})",
        "content hash of the base's weights": policy.content_hash,
        "trained": "all weights" if policy.lora is None else f"adapters, merged: {policy.lora.record()}",
        "method": _told(settings, "algorithm", "name"),
        "environment": _told(settings, "environment", "_target_").rpartition(".")[2],
        "iterations": iterations,
        "seed": _told(settings, "seed"),
        "hash of the run's configuration": _told(record, "config_hash"),
        "revision of sdar": _told(record, "versions", "sdar") if revision == _UNKNOWN else revision,
        "enable_thinking in the chat template": str(bool(model.get("enable_thinking", False))).lower(),
    }
    if moved:
        rows["quantized while it was trained"] = moved
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [sdar, reinforcement-learning]\n---\n\n"
        f"# {policy.name}, trained with sdar\n\n"
        "A language-model agent trained by reinforcement learning with sdar, an independent implementation of\n"
        "Self-Distilled Agentic Reinforcement Learning (arXiv 2605.15155). Written by `sdar export`.\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        "The license is the base model's. Prompts are the environment's (`sdar.environments`), rendered by the chat\n"
        "template; success rates are in the run's `results.json`.\n"
    )


if __name__ == "__main__":
    run_command(main)
