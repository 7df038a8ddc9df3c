"""``python -m sdar.warm_start seed=0 out=FOLDER``: train a tiny model from scratch on demonstrations and save it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar.errors import UserError
from sdar.policy.chat import ChatFormat
from sdar.policy.language_model import tiny_model
from sdar.policy.tiny import build_model, build_tokenizer
from sdar.warm_start.alfworld import PHRASES, AlfworldDemonstrations, Mixture
from sdar.warm_start.evaluate import evaluate_warm_start
from sdar.warm_start.train import WarmStartSettings, train_warm_start

VOCABULARY_SIZE = 1024
_VOCABULARY_EPISODES = 4000


@dataclass
class Command:
    """Settings of the command line."""

    seed: int = 0
    out: str = "logs/warm_start"
    threads: int = 2
    max_turns: int = 14
    training: WarmStartSettings = field(default_factory=WarmStartSettings)
    mixture: Mixture = field(default_factory=Mixture)


def main(arguments: list[str]) -> int:
    """Train and save; returns the exit code."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Command), OmegaConf.from_cli(arguments))
    except OmegaConfBaseException as error:
        raise UserError(f"{str(error).splitlines()[0]}; allowed settings: {', '.join(Command.__annotations__)}") from error
    command = OmegaConf.to_object(merged)
    assert isinstance(command, Command)
    torch.set_num_threads(command.threads)
    run(command)
    return 0


def run(command: Command) -> None:
    """Train and save the folder ``command.out``: weights, config, tokenizer, and how it was made."""
    print("building the vocabulary")
    # The vocabulary comes from seed 0 whatever the seed, so that warm starts differ in their weights only.
    texts = AlfworldDemonstrations(None, seed=0, max_turns=command.max_turns).texts(_VOCABULARY_EPISODES)
    tokenizer = build_tokenizer(texts, PHRASES, VOCABULARY_SIZE)
    chat = ChatFormat.from_tokenizer(tokenizer)
    assert isinstance(tokenizer.pad_token_id, int)
    model = build_model(len(tokenizer), seed=command.seed, pad_id=tokenizer.pad_token_id, end_id=chat.end_id)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters:,} parameters, {len(tokenizer)} tokens in the vocabulary")
    demonstrations = AlfworldDemonstrations(
        chat, seed=command.seed, max_turns=command.max_turns, mixture=command.mixture
    )

    def report(step: int, loss: float, seconds: float) -> None:
        if step % 10 == 0 or step == command.training.steps:
            left = seconds / step * (command.training.steps - step)
            print(f"step {step}/{command.training.steps}  loss {loss:.4f}  {left / 60:.1f} min left", flush=True)

    train_warm_start(model, demonstrations, command.training, tokenizer.pad_token_id, report)
    out = Path(command.out)
    out.mkdir(parents=True, exist_ok=True)
    # Half precision halves the file; every figure below is of the weights as they are saved.
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    made_by = OmegaConf.to_container(OmegaConf.structured(command))
    assert isinstance(made_by, dict)
    made_by.pop("out")
    results = evaluate_warm_start(tiny_model(out), command.max_turns)
    for result in results:
        print(result.line())
    made_by["success"] = {result.name: [result.successes, result.n] for result in results}
    (out / "warm_start.json").write_text(json.dumps(made_by, indent=2) + "\n")
    print(f"saved to {out}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as mistake:
        sys.exit(f"error: {mistake}")
