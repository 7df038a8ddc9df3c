"""``python -m sdar.warm_start environment=NAME seed=0 out=FOLDER``: train a tiny model from scratch and save it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sdar.config.arguments import named_values
from sdar.errors import RunFailed, UserError, command, run_command
from sdar.files import MB, read_json
from sdar.policy.chat import ChatFormat
from sdar.policy.language_model import tiny_model
from sdar.policy.tiny import TinyShape, build_model, build_tokenizer
from sdar.warm_start.demonstrations import DemonstrationStream, Mixture
from sdar.warm_start.domain import Domain
from sdar.warm_start.domains import load_domain
from sdar.warm_start.evaluate import evaluate_warm_start
from sdar.warm_start.settings import WarmStartSettings
from sdar.warm_start.train import fast_products, train_warm_start

_VOCABULARY_EPISODES = 4000
RECORD = "warm_start.json"
_STAGED = ".staged"
"""Folder of files that belong together and are not all in their place yet."""
_HELP_OPTIONS = ("-h", "--help")
_HELP = """\
usage: python -m sdar.warm_start [environment=NAME] [out=FOLDER] [SETTING=VALUE ...]

Trains a tiny model from scratch on demonstrations of an environment, and saves it. A stopped command continues after
its last finished cycle. The settings and their values with these arguments:

"""


@dataclass
class Command:
    """Settings of the command line. The defaults are those of the environment's shipped model."""

    environment: str = "alfworld"
    seed: int = 0
    out: str = "logs/warm_start"
    threads: int = 2
    cycles: int = 1
    max_turns: int = 14
    shape: TinyShape = field(default_factory=TinyShape)
    training: WarmStartSettings = field(default_factory=WarmStartSettings)
    mixture: Mixture = field(default_factory=Mixture)


@command
def main(arguments: Sequence[str]) -> int:
    """Train and save; returns the exit code."""
    settings = [argument for argument in arguments if argument not in _HELP_OPTIONS]
    given = named_values(settings, "sdar.warm_start.__main__.Command")
    domain = load_domain(given.get("environment", Command.environment))
    defaults = Command(max_turns=domain.max_turns, training=domain.training())
    command = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(defaults), given))
    assert isinstance(command, Command)
    if len(settings) < len(arguments):
        print(_HELP, OmegaConf.to_yaml(OmegaConf.structured(command)), sep="", end="")
        return 0
    torch.set_num_threads(command.threads)
    if command.training.products == "auto":  # resolved here, so that the record has the actual format
        command.training.products = fast_products()
    run(command, domain)
    return 0


def run(command: Command, domain: Domain) -> None:
    """Train and save the folder ``command.out``: weights, config, tokenizer, and the settings.

    The folder is written after every cycle: whole, or not at all. If it already has finished cycles of the same
    settings, training continues after them.
    """
    out = Path(command.out)
    made_by = _record(command)
    finished = _finished_cycles(out, made_by)
    if finished == 0:
        _save(out, *_fresh(command, domain), made_by | {"finished_cycles": 0})
    for cycle in range(finished, command.cycles):
        # Every cycle starts from the saved file, so that an interrupted command gives the same weights.
        policy = tiny_model(out)
        demonstrations = DemonstrationStream(
            domain, policy.chat, seed=command.seed, max_turns=command.max_turns, mixture=command.mixture
        )
        print(f"cycle {cycle + 1} of {command.cycles}", flush=True)
        first = cycle * command.training.steps * command.training.batch_size
        train_warm_start(policy.model, demonstrations, command.training, policy.pad_id, first, _progress(command))
        _save(out, policy.model, policy.tokenizer, made_by | {"finished_cycles": cycle + 1})
    results = evaluate_warm_start(tiny_model(out), domain, command.max_turns)
    for result in results:
        print(result.line())
    success = {result.name: [result.successes, result.n] for result in results}
    _write(out, made_by | {"finished_cycles": command.cycles, "success": success})
    print(f"saved to {out}")


def _fresh(command: Command, domain: Domain) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    print("building the vocabulary", flush=True)
    # The vocabulary always comes from seed 0, so that warm starts differ in their weights only.
    texts = DemonstrationStream(domain, None, seed=0, max_turns=command.max_turns).texts(_VOCABULARY_EPISODES)
    tokenizer = build_tokenizer(texts, domain.phrases, domain.vocabulary_size, domain.context_tokens)
    chat = ChatFormat.from_tokenizer(tokenizer)
    assert isinstance(tokenizer.pad_token_id, int)
    model = build_model(
        len(tokenizer),
        seed=command.seed,
        pad_id=tokenizer.pad_token_id,
        end_id=chat.end_id,
        context_tokens=domain.context_tokens,
        shape=command.shape,
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters:,} parameters, {len(tokenizer)} tokens in the vocabulary", flush=True)
    return model, tokenizer


def _progress(command: Command) -> Callable[[int, float, float], None]:
    def report(step: int, loss: float, seconds: float) -> None:
        if step % 10 == 0 or step == command.training.steps:
            left = seconds / step * (command.training.steps - step)
            print(f"step {step}/{command.training.steps}  loss {loss:.4f}  {left / 60:.1f} min left", flush=True)

    return report


def _record(command: Command) -> dict[str, Any]:
    record = OmegaConf.to_container(OmegaConf.structured(command))
    assert isinstance(record, dict)
    return {str(key): value for key, value in record.items() if key not in ("out", "threads", "cycles")}


def _finished_cycles(out: Path, made_by: dict[str, Any]) -> int:
    _settle(out)
    file = out / RECORD
    if not file.exists():
        if (out / "config.json").exists():
            raise UserError(f"out={out} has a model that this command did not make; set another folder")
        return 0
    older = {"environment": "alfworld", "shape": asdict(TinyShape())}  # of folders that do not say
    record = older | read_json(file, MB)
    if any(record.get(key) != value for key, value in made_by.items()):
        raise UserError(f"out={out} has a warm start with other settings; set another folder, or remove it")
    return int(record["finished_cycles"])


def _save(out: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, record: dict[str, Any]) -> None:
    shutil.rmtree(out / _STAGED, ignore_errors=True)
    # Half precision halves the file. Evaluation and later cycles always start from the saved weights.
    try:
        model.half().save_pretrained(out / _STAGED)
        tokenizer.save_pretrained(out / _STAGED)
    except SafetensorError as error:  # a full disk, which is no OSError there
        raise RunFailed(f"{out} cannot be written ({error}); the model saved before is whole") from error
    _write(out, record)


def _write(out: Path, record: dict[str, Any]) -> None:
    """Write the record, with the files that are staged."""
    staged = out / _STAGED
    staged.mkdir(parents=True, exist_ok=True)
    partial = staged / f"{RECORD}.partial"
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for file in staged.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    partial.replace(staged / RECORD)
    _settle(out)


def _settle(out: Path) -> None:
    """Move what is staged into its folder, record last. Without a record it is not complete, and is dropped."""
    staged = out / _STAGED
    if (staged / RECORD).exists():
        for file in sorted(staged.iterdir(), key=lambda file: file.name == RECORD):
            file.replace(out / file.name)
    shutil.rmtree(staged, ignore_errors=True)


if __name__ == "__main__":
    run_command(main)
