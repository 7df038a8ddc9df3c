"""The same iterations of GRPO by sdar and by TRL, in turns: CPU seconds of an iteration, and of its generation.

    python benchmarks/peers.py [--python VENV/bin/python] [--turns 8] [--rounds 2]

``--python`` is an interpreter that has sdar and TRL (1.16); each side runs in a process of its own. Both train the same
Qwen3 with random weights on the same texts, with GRPO, a KL of 0.01 and AdamW, in float32, on one thread. With
``--turns 1`` an iteration has 8 prompts of about 300 tokens and 8 responses of at most 128 tokens each. With more turns
it has 2 such prompts and 8 episodes each, of responses of 24 tokens and replies of about 30. TRL has no rollouts of its
own for a text environment without tool calls: a ``rollout_func`` plays it with ``generate``, on what the conversation
has grown to. TRL's gradient checkpointing is off, as ours is. Of two iterations the first is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROUNDS, ITERATIONS, GROUP = 2, 2, 8
PROMPT_CHARACTERS = 1000
REPLY = "You see a countertop 1, a cabinet 2, a cabinet 3, a drawer 1, and a fridge 1. Nothing else is there."
KL, LEARNING_RATE = 0.01, 1e-5


def main() -> None:
    """Play both sides and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--side", choices=("sdar", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        figures = {"sdar": ours, "trl": theirs}[options.side](options.folder, options.turns)
        print(json.dumps(figures))
        return
    found: dict[str, list[dict[str, float]]] = {"sdar": [], "trl": []}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), options.hidden_size, options.layers)
        for number in range(options.rounds):
            for side in ("sdar", "trl") if number % 2 == 0 else ("trl", "sdar"):
                found[side].append(played(side, options, Path(folder)))
                print(f"round {number + 1} {side:4} {found[side][-1]}", flush=True)
    report(found)


def played(side: str, options: Any, folder: Path) -> dict[str, float]:
    """The figures of one side, in a process of its own."""
    command = [options.python, __file__, "--side", side, "--folder", folder, "--turns", str(options.turns)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def report(found: dict[str, list[dict[str, float]]]) -> None:
    """Medians over the rounds, per iteration and per sampled token, and their ratios."""
    middle = {
        side: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for side, runs in found.items()
    }
    print("\n| CPU seconds | sdar | TRL | TRL / sdar |\n|---|---|---|---|")
    for name in ("iteration", "generation", "rest"):
        a, b = middle["sdar"][name], middle["trl"][name]
        print(f"| {name} | {a:.1f} | {b:.1f} | {b / a:.2f} |")
    a, b = (1e3 * middle[side]["iteration"] / middle[side]["tokens"] for side in ("sdar", "trl"))
    print(f"| iteration, per 1,000 sampled tokens | {a:.2f} | {b:.2f} | {b / a:.2f} |")


def prepare(folder: Path, hidden_size: int, layers: int) -> None:
    """A model with random weights, the shipped tokenizer, and prompts."""
    from rollout_backends import random_model

    from sdar.environments.alfworld.environment import AlfworldEnvironment
    from sdar.policy.language_model import tiny_model

    policy, environment = tiny_model("alfworld"), AlfworldEnvironment()
    model = random_model(policy, hidden_size, layers)
    model.config.eos_token_id, model.config.pad_token_id = policy.chat.end_id, policy.pad_id
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = policy.chat.end_id, policy.pad_id
    model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    texts = []
    for task in environment.tasks("train")[: 8 * ITERATIONS]:
        (seen,) = environment.open_pool().reset([task])
        text = environment.opening(task, seen)  # type: ignore[arg-type]
        texts.append((text * (1 + PROMPT_CHARACTERS // len(text)))[:PROMPT_CHARACTERS])
    (folder / "prompts.json").write_text(json.dumps(texts))


def size(turns: int) -> tuple[int, int]:
    """Prompts of an iteration, and the longest response in tokens."""
    return (8, 128) if turns == 1 else (2, 24)


def reward(text: str) -> float:
    """Of a response: half of the responses have it."""
    return float(len(text) % 2)


def summed(marks: list[float], generation: list[float], tokens: list[int]) -> dict[str, float]:
    """Figures per iteration without the first. ``marks``: CPU seconds at the end of each."""
    count = len(marks) - 1
    iteration = (marks[-1] - marks[0]) / count
    generated = sum(generation[1:]) / count
    return {
        "iteration": iteration,
        "generation": generated,
        "rest": iteration - generated,
        "tokens": sum(tokens[1:]) / count,
    }


def ours(folder: Path, turns: int) -> dict[str, float]:
    """Iterations of this project."""
    import lightning
    from lightning.pytorch import Callback

    import sdar
    from sdar.environments.multi_turn import Example, MultiTurnEnvironment, Reply
    from sdar.learning.optimizer import OptimizerSettings
    from sdar.objective.objective import ObjectiveConfig
    from sdar.policy.language_model import load_model
    from sdar.rollout.collector import Collector
    from sdar.rollout.settings import RolloutSettings, SamplingConfig

    prompts, longest = size(turns)
    texts = json.loads((folder / "prompts.json").read_text())

    class Talk(MultiTurnEnvironment):
        name = "talk"
        max_turns = turns

        def examples(self, split: str) -> list[Example]:
            return [Example(text, f"{split} {number}") for number, text in enumerate(texts)]

        def begin(self, example: Example) -> list[str]:
            return []

        def play(self, state: list[str], action: str) -> Reply:
            state.append(action)
            return Reply(REPLY, reward(action), done=len(state) == turns)

        def action(self, response: str) -> str:
            return response

    marks: list[float] = []
    generation: list[float] = []
    tokens: list[int] = []

    class Clock(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            marks.append(time.process_time())
            tokens.append(int(module.report.prepared.batch.response_mask.sum()))

    class Timed(Collector):
        def collect(self, *arguments: Any, **options: Any) -> Any:
            started = time.process_time()
            collected = super().collect(*arguments, **options)
            generation.append(time.process_time() - started)
            return collected

    policy = load_model(str(folder), "random weights", "model.path", dtype="float32")
    rollout = RolloutSettings(
        tasks_per_iteration=prompts,
        group_size=GROUP,
        max_concurrent_episodes=prompts * GROUP,
        sampling=SamplingConfig(max_response_tokens=longest),
    )
    objective = ObjectiveConfig(distillation_coefficient=0, kl_coefficient=KL)
    method = sdar.Method(name="grpo", objective=objective, score_teacher=False)
    talk = Talk()
    data = sdar.RolloutDataModule(Timed(policy, talk, rollout), talk, method, rollout, seed=1)
    module = sdar.SDARModule(policy, method, None, OptimizerSettings(learning_rate=LEARNING_RATE), rollout)
    lightning.Trainer(
        max_epochs=ITERATIONS,
        accelerator="cpu",
        logger=False,
        callbacks=[Clock()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, datamodule=data)
    return summed(marks, generation, tokens)


def theirs(folder: Path, turns: int) -> dict[str, float]:
    """Iterations of TRL."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    prompts, longest = size(turns)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    texts = json.loads((folder / "prompts.json").read_text())
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in texts]
    rows_per_pass = 8
    marks: list[float] = []
    generation: list[float] = []
    tokens: list[int] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.process_time())

    class Timed(GRPOTrainer):  # type: ignore[misc]
        def _generate(self, *arguments: Any, **options: Any) -> Any:
            started = time.process_time()
            made = super()._generate(*arguments, **options)
            generation.append(time.process_time() - started)
            sampled = made[1] if made[2] is None else [[t for t in mask if t] for mask in made[2]]
            tokens.append(sum(map(len, sampled)))
            return made

    between = tokenizer.apply_chat_template(
        [{"role": "user", "content": REPLY}], tokenize=True, add_generation_prompt=True, return_dict=False
    )

    def conversation(given: list[Any], trainer: Any) -> dict[str, Any]:
        """Each turn is generated from the whole conversation so far."""
        starts = [
            tokenizer.apply_chat_template(prompt, tokenize=True, add_generation_prompt=True, return_dict=False)
            for prompt in given
        ]
        ids, masks = [list(start) for start in starts], [[] for _ in given]  # type: ignore[var-annotated]
        for turn in range(turns):
            batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
            with torch.no_grad():
                made = trainer.model.generate(
                    **batch, max_new_tokens=longest, do_sample=True, temperature=1.0, top_k=0, top_p=1.0
                )
            for row, response in enumerate(made[:, batch["input_ids"].shape[1] :].tolist()):
                if tokenizer.eos_token_id in response:
                    response = response[: response.index(tokenizer.eos_token_id) + 1]
                reply = between if turn + 1 < turns else []
                ids[row] += [*response, *reply]
                masks[row] += [1] * len(response) + [0] * len(reply)
        said = [row[len(start) :] for row, start in zip(ids, starts, strict=True)]
        return {"prompt_ids": starts, "completion_ids": said, "logprobs": None, "env_mask": masks}

    def scored(completions: list[Any], **_: Any) -> list[float]:
        return [reward(completion[0]["content"]) for completion in completions]

    episodes = prompts * GROUP
    settings = GRPOConfig(
        output_dir=str(folder / "trl"),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=rows_per_pass,
        gradient_accumulation_steps=episodes // rows_per_pass,
        num_generations=GROUP,
        max_completion_length=longest if turns == 1 else 4096,
        max_steps=ITERATIONS,
        beta=KL,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        loss_type="grpo",
        temperature=1.0,
        top_k=0,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        seed=1,
    )
    trainer = Timed(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=scored,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Clock()],
        rollout_func=None if turns == 1 else conversation,
    )
    torch.set_num_threads(1)
    trainer.train()
    return summed(marks, generation, tokens)


if __name__ == "__main__":
    main()
