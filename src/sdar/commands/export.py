"""``sdar export ckpt_path=PATH out=FOLDER``: a trained model as a Hugging Face folder.

The folder holds the model (adapters merged), the tokenizer with its chat template, generation settings and a model
card. The command loads the written folder with transformers alone and compares log-probs before it succeeds. With
``push_to_hub=OWNER/NAME`` the folder is then uploaded to the Hugging Face Hub.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sdar.commands.card_facts import card_facts, check_license
from sdar.commands.hub import Hub
from sdar.config.arguments import named_values
from sdar.config.command_line import CommandLine, only, parse_command_line
from sdar.config.fields import settings
from sdar.config.paths import at_home
from sdar.config.plugins import allowing
from sdar.errors import USER_ERROR, RunFailed, UserError, command, run_command
from sdar.policy.model_card import FILE_NAME, model_card
from sdar.run.folder import CONFIG_FILE, check_writable, run_config

USAGE = """\
usage: sdar export ckpt_path=PATH out=FOLDER [license=ID] [push_to_hub=OWNER/NAME] [private=true]
                   [model=... model.SETTING=...] [--config-dir DIR] [--allow PACKAGE]

Writes a run's checkpoint as a Hugging Face folder for AutoModelForCausalLM and AutoTokenizer, with a model card.
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
        return 0 if arguments else USER_ERROR
    line = parse_command_line(arguments)
    only(line, "sdar export", "--config-dir")
    with allowing(line.allow):
        return _export(line)


@settings(frozen=True)
class ExportSettings:
    """What is said and done besides writing the folder.

    ``license``      identifier of the Hub for the model card; None: that of the base, where it is known
    ``push_to_hub``  OWNER/NAME on the Hugging Face Hub that the folder is uploaded to; None: it is not
    ``private``      whether only its owner may see it there
    """

    license: str | None = None
    push_to_hub: str | None = None
    private: bool = True


def _export(line: CommandLine) -> int:
    checkpoint, out, others = _request(line)
    names = {field.name for field in fields(ExportSettings)}
    own = [text for text in others if text.partition("=")[0] in names]
    given = ExportSettings(**named_values(own, "sdar.commands.export.ExportSettings"))
    check_license(given.license)
    model = _model(checkpoint, [text for text in others if text not in own], line)
    hub = None if given.push_to_hub is None else Hub(given.push_to_hub, private=given.private)
    import transformers  # takes seconds, and mistakes are told before

    transformers.utils.logging.disable_progress_bar()
    error = export(checkpoint, out, model, name=out.absolute().name if hub is None else hub.name, license=given.license)
    print(f"log-probs of the written folder differ from the trained model's by {error:.2g} nats at most")
    if hub is not None:
        print(f"{out} was uploaded: {hub.push(out)}")
    return 0


def _request(line: CommandLine) -> tuple[Path, Path, list[str]]:
    """Checkpoint, folder, and the other arguments."""
    given = {name: value for name, _, value in (text.partition("=") for text in line.overrides)}
    for name in ("ckpt_path", "out"):
        if not given.get(name):
            raise UserError(f"{name} is missing: sdar export ckpt_path=PATH out=FOLDER")
    checkpoint, out = Path(at_home(given["ckpt_path"])), Path(at_home(given["out"])).absolute()
    if not checkpoint.is_file():
        reason = " (a directory: a sharded checkpoint?)" if checkpoint.is_dir() else ""
        raise UserError(f"ckpt_path must be the file of a checkpoint, got {checkpoint}{reason}")
    if out.exists() and (not out.is_dir() or any(file.name not in _ignored(out) for file in out.iterdir())):
        raise UserError(f"out must be a new or empty folder, got {out}")
    check_writable("out", out)
    return checkpoint, out, [text for text in line.overrides if text.partition("=")[0] not in ("ckpt_path", "out")]


def _model(checkpoint: Path, overrides: Sequence[str], line: CommandLine) -> dict[str, Any]:
    """Settings of the model, checked as far as possible without the model."""
    from sdar.run.parts import compose_parts, part

    found: dict[str, Any]
    if overrides:
        found = part(compose_parts(overrides, ("model",), config_dir=line.config_dir), "model")
        return found
    known = run_config(checkpoint)
    if known is None:
        raise UserError(
            f"ckpt_path={checkpoint} is not in a run folder with a {CONFIG_FILE}; set its model, as in model=hf "
            "model.name=NAME"
        )
    found = part(known, "model")
    return found


def export(
    checkpoint: Path, out: Path, model: Mapping[str, Any], *, name: str | None = None, license: str | None = None
) -> float:
    """Write the folder ``out`` and return the largest difference of a log-prob, in nats.

    ``name``: of the exported model, None: that of the folder; ``license``: for the model card, see
    :func:`sdar.commands.card_facts.card_facts`.

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
    out = out.absolute()
    exists = out.exists()
    # A folder that exists may be a file system of its own, and its parent nobody's to write.
    partial = (out if exists else out.parent) / _partial(out)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        policy.model.save_pretrained(str(partial))
        policy.tokenizer.save_pretrained(str(partial))
        facts = card_facts(
            checkpoint,
            model,
            policy,
            name=name or out.absolute().name,
            iterations=iterations,
            license=license,
            moved=moved,
        )
        (partial / FILE_NAME).write_text(model_card(facts), encoding="utf-8")
        error = _check(partial, policy, ids, expected, trust=model.get("trust_remote_code") is True)
        if exists:
            # Whoever finds the configuration finds the rest.
            for file in sorted(partial.iterdir(), key=lambda file: file.name == "config.json"):
                file.rename(out / file.name)
        else:
            partial.rename(out)
    except SafetensorError as error:  # a full disk, which is no OSError there
        raise RunFailed(f"{partial} cannot be written ({error}); nothing is in {out}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{policy.name} after {iterations} iterations is in {out}")
    return error


def _partial(out: Path) -> str:
    return f".{out.name}.partial"


def _ignored(out: Path) -> set[str]:
    """What an empty folder may hold: the rest of an export that was killed, and what file systems put there."""
    return {_partial(out), "lost+found"}


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


if __name__ == "__main__":
    run_command(main)
