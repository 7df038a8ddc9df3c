"""How many tokens does the model compute with append, and how many with window? Counted, not timed.

    python benchmarks/append_vs_window.py [--data FOLDER] [--games 50] [--tokenizer NAME] [--skill-tokens N] ...

Every game is played with a fixed short thought in every turn, once in each context: the same actions, observations and
lists of admissible commands, through the collector, the packers and the skills of a run. Only the model is missing. Who
plays: the game's own solution (short episodes, all won), and an agent that takes random admissible commands until the
turn limit (long ones, as at the beginning of training). Counted are

    generation   tokens fed while playing: new prompt tokens and sampled ones (append keeps its cache, window has none)
    old, ref     rows scored once each, update: rows scored once more, with gradient
    teacher      rows with the privileged block

for one episode per game. The last line weighs the backward pass of the update as two forward passes.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from transformers import AutoTokenizer

from sdar.config.build import build
from sdar.environments.base import Environment
from sdar.episode import Observation, Task
from sdar.learning.batch import pack, pack_teacher
from sdar.policy.chat import ChatFormat
from sdar.policy.language_model import PRETRAINED, LanguageModel
from sdar.randomness import keyed_generator
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.sampling import ResponseGenerator
from sdar.rollout.settings import Context, RolloutSettings
from sdar.run.settings import RunSettings
from sdar.run.validate import compose

THOUGHT = "I look for what the task names and bring it where it belongs."
CONTEXTS: tuple[Context, ...] = ("append", "window")
SCORINGS = ("old", "reference", "update")


Scripts = Sequence[Sequence[str]]
"""The commands of each game."""


def main() -> None:
    """Play, count, and print the ratios."""
    options = _options()
    settings = _settings(options)
    environment: Environment = build(settings.config["environment"], "environment")
    teacher = settings.teacher
    assert teacher is not None
    chat = ChatFormat.from_tokenizer(AutoTokenizer.from_pretrained(options.tokenizer))
    tasks = _tasks(environment, options.games)
    blocks = [chat.privileged(teacher.privileged_text(task)) for task in tasks]
    if options.skill_tokens is not None:
        blocks = [[0] * options.skill_tokens for _ in tasks]
    players = {"solutions": [environment.expert(task) or [] for task in tasks], "random": _walks(environment, tasks)}
    print(f"{len(tasks)} {'generated' if options.data is None else 'published'} games")
    for name, scripts in players.items():
        counts = {c: count(c, environment, chat, tasks, scripts, blocks, options.history) for c in CONTEXTS}
        _print(name, counts, len(tasks))


def count(
    context: Context,
    environment: Environment,
    chat: ChatFormat,
    tasks: Sequence[Task],
    scripts: Scripts,
    blocks: Sequence[Sequence[int]],
    history: int,
) -> Counter[str]:
    """Tokens that the model would compute, by what for; and ``turns``, ``block`` (tokens of the teacher's text)."""
    generator = _Replay(chat, scripts)
    collector = Collector(
        cast("LanguageModel", SimpleNamespace(chat=chat, context_tokens=10**9)),
        environment,
        RolloutSettings(max_concurrent_episodes=len(tasks), context=context, history_turns=history),
        generator_factory=lambda *_: generator,
    )
    requests = [EpisodeRequest(task, member=0) for task in tasks]
    episodes = collector.collect(requests, seed=0, key=("benchmark",)).episodes
    assert not any(generator.remaining), "an episode ended before its commands did"
    rows = pack(episodes, [[0.0] * len(e.turns) for e in episodes], pad_id=0, context=context)
    seen = pack_teacher(episodes, blocks, pad_id=0, context_tokens=10**9, context=context)
    counts = Counter({name: sum(rows.lengths()) for name in SCORINGS})
    counts["generation"] = generator.tokens
    counts["teacher"] = sum(seen.lengths())
    counts["turns"] = sum(len(episode.turns) for episode in episodes)
    counts["block"] = sum(map(len, blocks))
    return counts


class _Replay(ResponseGenerator):
    """Answers with the script's next command instead of sampling, and counts what it is fed."""

    def __init__(self, chat: ChatFormat, scripts: Scripts) -> None:
        self.chat = chat
        self.remaining = [list(script) for script in scripts]
        self.tokens = 0

    def start(self, num_slots: int) -> None:
        pass

    def respond(self, new_ids: Mapping[int, Sequence[int]], _: Mapping[int, Any]) -> dict[int, list[int]]:
        answers: dict[int, list[int]] = {}
        for slot, ids in new_ids.items():
            text = f"<think>{THOUGHT}</think><action>{self.remaining[slot].pop(0)}</action>"
            answers[slot] = [*self.chat.privileged(text), self.chat.end_id]
            self.tokens += len(ids) + len(answers[slot])
        return answers


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the published games; without it, generated ones of their size")
    parser.add_argument("--games", type=int, default=50, help="how many, spread over the training split")
    parser.add_argument(
        "--tokenizer",
        default=str(PRETRAINED / "alfworld"),
        help="a name or a folder; the default is the shipped tiny one, which knows this domain's words as tokens",
    )
    parser.add_argument("--history", type=int, default=2, help="past turns that a window prompt shows")
    parser.add_argument("--skills", default="alfworld_llm", help="the teacher's library: alfworld is the tiny model's")
    parser.add_argument("--skill-tokens", type=int, help="length of the teacher's text; by default, of the skills")
    parser.add_argument("--no-list", action="store_true", help="do not list the admissible commands")
    return parser.parse_args()


def _settings(options: argparse.Namespace) -> RunSettings:
    overrides = ["environment.prompt_style=full", "environment.max_turns=50"]
    overrides.append(f"skills={options.skills}")
    overrides.append(f"environment.list_actions={str(not options.no_list).lower()}")
    if options.data is None:
        overrides += [
            "environment.data_dir=null",
            "environment.generator.receptacles=[12,33]",
            "environment.generator.distractors=[20,36]",
        ]
    else:
        overrides.append(f"environment.data_dir={options.data}")
    return compose(overrides)


def _tasks(environment: Environment, number: int) -> list[Task]:
    """Games with a known solution that fits into the turn limit, evenly spread over the training split."""
    split = environment.splits()[0]
    solved = [t for t in environment.tasks(split) if 0 < len(environment.expert(t) or ()) <= environment.max_turns]
    if len(solved) < number:
        raise SystemExit(f"--games {number}: only {len(solved)} games of {split} have a solution")
    return [solved[position * len(solved) // number] for position in range(number)]


def _walks(environment: Environment, tasks: Sequence[Task]) -> list[list[str]]:
    """Random admissible commands until the game is won or the turns are used up."""
    pool = environment.open_pool()
    views = dict(enumerate(pool.reset(tasks)))
    walks: list[list[str]] = [[] for _ in tasks]
    for turn in range(environment.max_turns):
        for slot, view in views.items():
            offers = view.actions if isinstance(view, Observation) else None
            assert offers, f"game {tasks[slot].task_id} offers nothing to do"
            rng = keyed_generator(0, "benchmark", tasks[slot].task_id, turn)
            walks[slot].append(offers[int(rng.integers(len(offers)))])
        outcomes = pool.step({slot: walks[slot][-1] for slot in views})
        views = {slot: outcome.observation for slot, outcome in outcomes.items() if not outcome.done}
    pool.close()
    return walks


def _print(player: str, counts: Mapping[str, Counter[str]], games: int) -> None:
    append, window = (counts[context] for context in CONTEXTS)
    turns, block = append["turns"] / games, append["block"] / games
    print(f"\n{player}: {turns:.1f} turns an episode, {block:.0f} tokens of skills")
    print(f"{'tokens per episode':>22}  {'append':>9}  {'window':>9}  {'append / window':>15}")

    def line(name: str, *weights: tuple[str, int]) -> None:
        sums = [sum(weight * tokens[part] for part, weight in weights) / games for tokens in (append, window)]
        print(f"{name:>22}  {sums[0]:9.0f}  {sums[1]:9.0f}  {sums[0] / sums[1]:15.3f}")

    once = [(name, 1) for name in ("generation", *SCORINGS, "teacher")]
    for name in ("generation", *SCORINGS, "teacher"):
        line(name, (name, 1))
    line("whole SDAR iteration", *once)
    line("with the backward pass", *once, ("update", 2))


if __name__ == "__main__":
    main()
