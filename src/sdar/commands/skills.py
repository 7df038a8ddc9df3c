"""``sdar skills show environment=alfworld task="..."``: what every strategy retrieves for a task, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sdar.config.command_line import CommandLine, only, parse_command_line
from sdar.config.plugins import allowing
from sdar.errors import USER_ERROR, UserError, command, run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sdar.environments.base import Environment
    from sdar.episode import Task
    from sdar.skills.library import SkillLibrary
    from sdar.skills.retrieval import Retrieval

Write = Callable[[str], object]

USAGE = """usage: sdar skills show  SETTING... task="DESCRIPTION" [type=TASK_TYPE]
       sdar skills check SETTING...

show    what every strategy retrieves for one task, and why (seed=N sets the random draws)
check   the skills that keywords select for every task of the environment, and the tasks without any

Settings are those of training for the tasks, the library and the strategies: environment=alfworld, skills=FOLDER,
model=hf (which reads other skills than the tiny model), retrieval.top_k=2. Real questions need the name of a search
engine, though nothing is searched: environment=search_qa environment.data_dir=FOLDER search_engine=http. Files and
packages of your own: --config-dir DIR, --allow PACKAGE."""

_ALLOWED = ("environment", "search_engine", "skills", "retrieval", "model")
_NAMED = 8
"""How many tasks without a skill are shown per split."""


@command
def main(arguments: Sequence[str], write: Write = print) -> int:
    """Run a command line and return the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        write(USAGE)
        return 0 if arguments else USER_ERROR
    line = parse_command_line(arguments)
    only(line, "sdar skills", "--config-dir")
    with allowing(line.allow):
        return _run(line, write)


def _run(line: CommandLine, write: Write) -> int:
    word, *rest = line.overrides or ("nothing",)
    given = [text.partition("=") for text in rest]
    own = {name: value for name, _, value in given if name in ("task", "type", "seed")}
    overrides = ["".join(words) for words in given if words[0] not in own]
    if word == "show":
        _show(overrides, line.config_dir, own, write)
    elif word != "check":
        raise UserError(f"{word}: it must be show or check; --help shows how")
    elif own:
        raise UserError(f"{next(iter(own))} is for show: check looks at every task")
    else:
        _check(overrides, line.config_dir, write)
    return 0


def _composed(overrides: Sequence[str], config_dir: str | None) -> tuple[DictConfig, Environment, SkillLibrary]:
    from sdar.run.parts import build_part, compose_parts, part
    from sdar.skills.library import SkillLibrary

    config = compose_parts(overrides, _ALLOWED, config_dir=config_dir)
    return config, build_part(config, "environment"), SkillLibrary.load(part(config, "skills"))


def _show(overrides: Sequence[str], config_dir: str | None, own: Mapping[str, str], write: Write) -> None:
    """Show the chosen strategy with its settings, and all others with their defaults."""
    from pathlib import Path

    from sdar.config.build import build
    from sdar.config.sources import config_folder, groups
    from sdar.run.parts import compose_parts, part
    from sdar.skills.retrieval import Draw

    if not own.get("task"):
        raise UserError('task must be the description of a task, as in task="put a hot mug in cabinet"')
    seed = own.get("seed", "0")
    if not seed.isdecimal():
        raise UserError(f"seed must be a whole number >= 0, got {seed}")
    config, environment, library = _composed(overrides, config_dir)
    chosen = part(config, "retrieval")
    task, origin = _task(environment, library, own)
    write(f"task: {task.description}\ntype: {task.task_type} ({origin})\nlibrary: {part(config, 'skills')}")
    folders = [config_folder(), *([] if config_dir is None else [Path(config_dir)])]
    others = [text for text in overrides if not text.lstrip("+~").startswith("retrieval")]
    for name in groups(*folders)["retrieval"]:
        try:
            if (config_folder() / "retrieval" / f"{name}.yaml").is_file():
                composed = compose_parts([f"retrieval={name}"], _ALLOWED)
            else:
                composed = compose_parts([*others, f"retrieval={name}"], _ALLOWED, config_dir=config_dir)
            settings = part(composed, "retrieval")
        except UserError as error:
            raise UserError(f"retrieval={name}: {error}") from error
        same = settings["_target_"] == chosen["_target_"]
        retrieval: Retrieval = build(chosen if same else settings, "retrieval")
        write(f"\nretrieval={name}")
        ranked = retrieval.ranked(library, task, Draw(int(seed)))
        for choice in ranked:
            write(f"  {choice.skill.name:<16} {len(choice.skill.text.split()):>4} words  {choice.reason}")
        if not ranked:
            write("  nothing")
    write("\nSkills are listed by rank: under teacher.budget_tokens, the last is dropped first. Random choices are")
    write(f"those of seed {seed}, iteration 0, member 0, and of a new run for ucb. A run logs its own in skills.jsonl.")


def _task(environment: Environment, library: SkillLibrary, own: Mapping[str, str]) -> tuple[Task, str]:
    """The task to show, and where its type comes from."""
    from sdar.episode import Task
    from sdar.skills.retrieval import KeywordRetrieval

    words = " ".join(own["task"].split())
    if "type" in own:
        return Task("shown", own["type"], words, "", ""), "as given"
    for split in environment.splits():
        for task in environment.tasks(split):
            if " ".join(task.description.split()).lower() == words.lower():
                return task, f"that of {split} task {task.task_id}"
    guess = Task("shown", "unknown", words, "", "")
    found = [name for skill in KeywordRetrieval(general=False).select(library, guess) for name in skill.task_types]
    if not found:
        return guess, "no task of the environment has this description; set type=TASK_TYPE"
    return Task("shown", found[0], words, "", ""), "guessed from keywords; no task of the environment says this"


def _check(overrides: Sequence[str], config_dir: str | None, write: Write) -> None:
    """Count what keywords select, by split and task type."""
    from sdar.run.parts import part
    from sdar.skills.retrieval import KeywordRetrieval

    config, environment, library = _composed(overrides, config_dir)
    keyword = KeywordRetrieval(general=False)
    write(f"library: {part(config, 'skills')}, {len(library)} skills, {len(library.general)} of them general")
    used: set[str] = set()
    types: set[str] = set()
    for split in environment.splits():
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        without: dict[str, None] = {}  # an ordered set
        for task in environment.tasks(split):
            selected = [skill.name for skill in keyword.select(library, task)]
            used.update(selected)
            found[task.task_type][" + ".join(selected) or "none"] += 1
            if not selected:
                without[task.description] = None
        types |= found.keys()
        write(f"\n{split}")
        for task_type, counts in sorted(found.items()):
            total = counts.total()
            shares = ", ".join(f"{name} {count / total:.1%}" for name, count in counts.most_common())
            write(f"  {task_type:<32} {total:>6} tasks: {shares}")
        for text in list(without)[:_NAMED]:
            write(f"  no task skill for: {text}")
    keys = {key for key, _ in library.type_keys}
    met = types | {key for key in keys if any(key in name for name in types)}
    named = {name for skill in library.task for name in skill.task_types}
    notes = {
        "never selected": [skill.name for skill in library.task if skill.name not in used],
        "task types of the library that no task has": sorted(named - met),
        "task types that no skill names, so that retrieval=task_type finds none": [
            name for name in sorted(types) if not library.for_type(name)
        ],
    }
    for note, names in notes.items():
        if names:
            write(f"\n{note}: {', '.join(names)}")


if __name__ == "__main__":
    run_command(main)
