"""``sdar export ckpt_path=PATH out=FOLDER``: a trained model as a Hugging Face folder.

The folder holds the model (adapters merged), the tokenizer with its chat template, generation settings and a model
card. Before the command says that it is done it loads the folder as anyone would, and compares log-probs.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdar.errors import UserError, command
from sdar.run.folder import CONFIG_FILE, RUN_FILE, read_config

USAGE = """\
usage: sdar export ckpt_path=PATH out=FOLDER [model=... model.SETTING=...]

Writes a checkpoint of a run as a Hugging Face folder that AutoModelForCausalLM and AutoTokenizer load.
The model is the one in the checkpoint's run folder (config.yaml); for a checkpoint that was moved away from it, name
the model as for training.
"""

_TOLERANCE = {"torch.float32": 1e-4, "torch.bfloat16": 0.25, "torch.float16": 0.03}
"""How far a log-prob of the folder may be from the trained policy's, in nats, by dtype: merging rounds to the dtype."""

_PROBE = (
    "You are in the middle of a room. Looking quickly around you, you see a cabinet 1 and a desk 2. Your task is to:"
)


@dataclass(frozen=True)
class _Request:
    """``checkpoint``, ``out``: as given; ``model``: the node to build, checked; ``run``: what is known of the run."""

    checkpoint: Path
    out: Path
    model: Mapping[str, Any]
    run: Mapping[str, Any]


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code: 0, or 2 for a mistake of the user, told in one sentence."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    request = _request(arguments)
    import transformers  # takes seconds: mistakes are told before

    transformers.utils.logging.disable_progress_bar()
    error = export(request)
    print(f"log-probs of the written folder differ from the trained model's by {error:.2g} nats at most")
    return 0


def export(request: _Request) -> float:
    """Write the folder; returns the largest difference of a log-prob, in nats.

    Raises:
        UserError: the checkpoint does not fit the model, or what was written computes something else.
    """
    from sdar.config.build import build
    from sdar.policy.language_model import LanguageModel
    from sdar.policy.lora import merge_adapters

    policy: LanguageModel = build(request.model, "model")
    iterations = _load(policy, request.checkpoint)
    ids, expected = _scores(policy)
    if policy.lora is not None:
        merge_adapters(policy.model)
    partial = request.out.with_name(f".{request.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(partial, policy, _card(request, policy, iterations))
        error = _check(partial, policy, ids, expected)
        if request.out.exists():
            request.out.rmdir()  # empty, or the request would have been refused
        partial.rename(request.out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{policy.name} after {iterations} iterations is in {request.out}")
    return error


def _request(arguments: Sequence[str]) -> _Request:
    """What the command line asks for, checked as far as it can be without the model."""
    given: dict[str, str] = {}
    overrides: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in ("ckpt_path", "out") and value:
            given[name] = value
        elif equals and name.lstrip("+").split(".")[0] == "model":
            overrides.append(argument)
        else:
            raise UserError(f"{argument}: allowed are ckpt_path=PATH, out=FOLDER and settings of the model")
    for name in ("ckpt_path", "out"):
        if name not in given:
            raise UserError(f"{name} is missing: sdar export ckpt_path=PATH out=FOLDER")
    checkpoint, out = Path(given["ckpt_path"]), Path(given["out"])
    if not checkpoint.exists():
        raise UserError(f"ckpt_path={checkpoint}: there is no such file; allowed is a checkpoint of a run")
    if checkpoint.is_dir():
        raise UserError(f"ckpt_path={checkpoint}: it is a folder (a sharded checkpoint?); allowed is a file")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out={out}: it is there already; allowed is a folder that is new or empty")
    run_folder = checkpoint.resolve().parent.parent
    known = (run_folder / CONFIG_FILE).is_file()
    if not known and not overrides:
        raise UserError(
            f"ckpt_path={checkpoint}: it does not lie in a run folder ({run_folder / CONFIG_FILE} is missing); "
            "allowed is to name its model, as in model=hf model.name=NAME"
        )
    settings = read_config(run_folder) if known else {}
    record = run_folder / RUN_FILE
    run = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    model = _model_node(overrides) if overrides else settings["model"]
    return _Request(checkpoint, out, model, {"settings": settings, "record": run})


def _model_node(overrides: Sequence[str]) -> Mapping[str, Any]:
    from sdar.run.parts import compose_parts, part

    node: Mapping[str, Any] = part(compose_parts(overrides, ("model",)), "model")
    return node


def _load(policy: Any, checkpoint: Path) -> int:
    """Put the checkpoint's weights into the policy; returns the iterations behind it."""
    from torch import nn

    from sdar.policy.checkpoint import finished_iterations, load_student, read_checkpoint

    holder = nn.Module()
    holder.model = policy.model  # the name that the parameters have in a run
    load_student(holder, policy, checkpoint)
    return finished_iterations(read_checkpoint(checkpoint, mmap=True))


def _scores(policy: Any) -> tuple[Any, Any]:
    """A probe [1, T] and the log-probs [1, T - 1] of its tokens, as the run scores them."""
    import torch

    from sdar.policy.log_probs import score_tokens

    opening, _ = policy.chat.opening(_PROBE)
    ids = torch.tensor([[*opening, *policy.chat.privileged("go to desk 2"), policy.chat.end_id]])
    ids = ids[:, -policy.context_tokens :]
    real = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        return ids, score_tokens(policy.model, ids, real, real & (torch.arange(ids.shape[1]) > 0)).log_probs[:, 1:]


def _write(folder: Path, policy: Any, card: str) -> None:
    generation = policy.model.generation_config
    generation.eos_token_id, generation.pad_token_id = policy.chat.end_id, policy.pad_id
    policy.model.save_pretrained(str(folder))
    policy.tokenizer.save_pretrained(str(folder))
    (folder / "README.md").write_text(card, encoding="utf-8")


def _check(folder: Path, policy: Any, ids: Any, expected: Any) -> float:
    """Load the folder with the library alone; UserError when it is not the trained model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=policy.model.dtype)
    with torch.no_grad():
        log_probs = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[:, :-1].float(), dim=-1)
    error = float((log_probs.gather(-1, ids[:, 1:, None]).squeeze(-1) - expected).abs().max())
    messages = [{"role": "user", "content": _PROBE}]
    rendered, own = (
        t.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        for t in (tokenizer, policy.tokenizer)
    )
    if not error <= _TOLERANCE[str(policy.model.dtype)] or rendered != own:
        raise UserError(
            f"out={folder}: what was written is not the trained model (log-probs differ by {error:.3g} nats, the chat "
            f"template {'differs' if rendered != own else 'is the same'}), so it was taken away again"
        )
    return error


def _card(request: _Request, policy: Any, iterations: int) -> str:
    settings, record = request.run["settings"], request.run["record"]
    rows = {
        "base": f"{policy.name} ({policy.architecture})",
        "content hash of the base's weights": policy.content_hash,
        "trained": "all weights" if policy.lora is None else f"adapters, merged: {policy.lora.record()}",
        "method": settings.get("algorithm", {}).get("name", "unknown"),
        "environment": str(settings.get("environment", {}).get("_target_", "unknown")).rpartition(".")[2],
        "iterations": iterations,
        "seed": settings.get("seed", "unknown"),
        "hash of the run's configuration": record.get("config_hash", "unknown"),
        "revision of sdar": (record.get("git") or {}).get("revision")
        or record.get("versions", {}).get("sdar", "unknown"),
        "enable_thinking in the chat template": str(bool(request.model.get("enable_thinking", False))).lower(),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [sdar, reinforcement-learning]\n---\n\n"
        f"# {policy.name}, trained with sdar\n\n"
        "A language-model agent trained by reinforcement learning with sdar, an independent implementation of\n"
        "Self-Distilled Agentic Reinforcement Learning (arXiv 2605.15155). Written by `sdar export`.\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        "The licence is the base model's. Prompts are the environment's (`sdar.environments`), rendered by the chat\n"
        "template; success rates are in the run's `results.json`.\n"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
