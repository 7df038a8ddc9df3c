"""What a report says, section by section."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sdar.compare.comparison import Runs, summarise_pairs
from sdar.compare.records import AFTER, BEFORE, WITH_SKILLS
from sdar.compare.report import remarks, span, tables
from sdar.compare.reporting.blocks import Block, Bullets, Heading, Listing, Picture, Pictures, Table, Text
from sdar.compare.reporting.collection import Collection, Group, differing_terms
from sdar.compare.reporting.costs import costs
from sdar.compare.reporting.curves import Figures, curve_pictures, difference_pictures, type_pictures
from sdar.compare.reporting.history import ALONE
from sdar.compare.reporting.history import WITH_SKILLS as HELPED
from sdar.compare.reporting.tabulating import DASH, WHOLE, course, over_iterations
from sdar.compare.reporting.teacher import curriculum
from sdar.compare.shape import is_text

_MOST_DRAWN = 4
"""Groups with pictures; more would be minutes of drawing, of runs that nobody meant to compare."""

SUCCESS = (
    Figures("val", "Panel: student alone", "success, %", lambda run: run.rates.get(ALONE, {}), 100, (0, 100)),
    Figures(
        "val_with_skills", "Panel: with skills", "success, %", lambda run: run.rates.get(HELPED, {}), 100, (0, 100)
    ),
)
ROLLOUTS = (
    Figures.of_tag("rollout/success_rate", "Training episodes: solved", "success, %", 100, (0, 100)),
    Figures.of_tag("rollout/turns_mean", "Training episodes: turns", "turns"),
    Figures.of_tag("rollout/response_tokens_mean", "Tokens per response", "tokens"),
    Figures.of_tag("rollout/valid_action_rate", "Responses in the asked format", "share, %", 100, (0, 100)),
)
INTERNALISATION = Figures(
    "internalisation", "Without minus with skills", "points", lambda run: run.internalisation, 100, (-100, 100)
)
HEALTH = (
    Figures.of_tag("rollout/entropy", "Entropy of sampling", "nats per token"),
    Figures.of_tag("train/grad_norm", "Gradient norm before clipping", "norm"),
)


def contents(
    collection: Collection, title: str, *, command: Sequence[str] | None = None, draw: bool = True
) -> list[Block]:
    """The report of these runs. ``command`` made them, where one did. ``draw``: pictures too."""
    groups = collection.groups
    blocks: list[Block] = [Heading(title, 1)]
    if command is not None:
        blocks.append(Listing("Command", (shlex.join(command),)))
    if not draw:
        blocks.append(Text("Without pictures: they need matplotlib, pip install 'sdar[plot]'."))
    if len(groups) == 1:
        blocks += _group(groups[0], 2, "", draw)
    else:
        blocks.append(
            Text(
                f"The runs are of {len(groups)} kinds that cannot be compared with one another, so each kind is shown "
                "apart and nothing is averaged over them."
            )
        )
        for number, group in enumerate(groups, start=1):
            blocks.append(Heading(f"{number}. {group.name}", 2))
            if number > 1:
                what = ", ".join(differing_terms(groups[0], group))
                blocks.append(Text(f"These runs differ from those of 1 in: {what}."))
            if draw and number > _MOST_DRAWN:
                blocks.append(Text(f"Pictures are drawn for the first {_MOST_DRAWN} kinds only."))
            blocks += _group(group, 3, f"{number}-", draw and number <= _MOST_DRAWN)
    if collection.left:
        blocks += [Heading("Folders that are not in this report"), Bullets(collection.left)]
    return blocks


def _group(group: Group, level: int, mark: str, draw: bool) -> list[Block]:
    """All sections of one group. Sections without a figure are left out."""
    sections: list[tuple[str, list[Block]]] = [
        ("Success", _success(group, draw)),
        ("Training episodes", course(group, ROLLOUTS, draw)),
        ("What the teacher thinks", curriculum(group, draw)),
        ("Internalization", _internalisation(group, draw)),
        ("Entropy and gradient", course(group, HEALTH, draw)),
        ("By task type", _types(group, draw)),
        ("Costs", costs(group, draw)),
        ("What was not run", [Bullets(tuple(_lacking(group)))]),
        ("How it was made", _origin(group)),
    ]
    blocks: list[Block] = _headlines(group)
    for title, section in sections:
        if section:
            blocks += [Heading(title, level), *_marked(section, mark)]
    return blocks


def _marked(blocks: Iterable[Block], mark: str) -> list[Block]:
    """The same blocks; pictures of different groups need different names."""

    def marked(picture: Picture) -> Picture:
        return replace(picture, name=mark + picture.name)

    return [Pictures(tuple(map(marked, one.pictures))) if isinstance(one, Pictures) else one for one in blocks]


def _headlines(group: Group) -> list[Block]:
    pairs = summarise_pairs(group.runs, group.methods, group.seeds)
    lines = []
    for pair in pairs:
        found = pair.differences.student
        interval = span(found.interval, "+")
        known = f"95 % interval {interval}"
        if interval == DASH:
            known = "one pair has no interval"
        elif pair.differences.deviation == 0:
            known = "no interval, as all pairs differ by the same"
        count = f"{found.n} pair{'s' if found.n > 1 else ''}"
        lines.append(
            f"{pair.method} minus {pair.baseline}, {pair.view}: {100 * found.mean:+.1f} points ({known}; {count})"
        )
    return [Text("Success on the panel after training, pair by pair:"), Bullets(tuple(lines))] if lines else []


def _success(group: Group, draw: bool) -> list[Block]:
    per_run, *others = tables(group.runs, group.methods, group.seeds)
    blocks: list[Block] = [*others]
    if draw:
        pictures = [*curve_pictures(group, SUCCESS), *difference_pictures(group)]
        blocks += [Text(WHOLE), Pictures(tuple(pictures))] if pictures else []
    blocks += [*over_iterations(group, SUCCESS[0], "Success of the student alone on the panel, %, mean over seeds")]
    blocks += [per_run, *_pair_by_pair(group)]
    said = remarks(group.runs, group.methods, group.seeds)
    return [*blocks, *([Bullets(tuple(said))] if said else [])]


def _pair_by_pair(group: Group) -> list[Block]:
    pairs = summarise_pairs(group.runs, group.methods, group.seeds)
    rows = [
        (pair.method, pair.view, str(seed), f"{100 * difference:+.1f}")
        for pair in pairs
        for seed, difference in zip(pair.seeds, pair.differences.values, strict=True)
    ]
    caption = f"After training, minus {group.methods[0]} of the same seed"
    return [Table(("method", "played"), ("seed", "difference, points"), tuple(rows), caption)] if rows else []


def _internalisation(group: Group, draw: bool) -> list[Block]:
    if not any(run.internalisation for run in group.histories.values()):
        return []
    blocks: list[Block] = [
        Text(
            "Success without minus with skills in the prompt, with the same weights. It rises towards 0 as the student "
            "comes to do alone what it could do with skills."
        )
    ]
    if draw:
        blocks += [Text(WHOLE), Pictures(tuple(curve_pictures(group, [INTERNALISATION])))]
    caption = "Success without minus with skills, points, mean over seeds"
    return [*blocks, *over_iterations(group, INTERNALISATION, caption)]


def _types(group: Group, draw: bool) -> list[Block]:
    columns = {
        "warm start": BEFORE,
        "trained": AFTER,
        "warm start, with skills": BEFORE + WITH_SKILLS,
        "trained, with skills": AFTER + WITH_SKILLS,
    }
    rows: list[tuple[str, ...]] = []
    for method in group.methods:
        runs = group.of(method).values()
        pooled = [_pooled(run.by_type.get(row, {}) for run in runs) for row in columns.values()]
        names = sorted({name for types in pooled for name in types})
        rows += [(method, name, *(_solved(types.get(name)) for types in pooled)) for name in names]
    if not rows:
        return []
    table = Table(
        ("method", "task type"), tuple(columns), tuple(rows), "Tasks solved of those played, all seeds together"
    )
    pictures = type_pictures(group) if draw else []
    return [*([Pictures(tuple(pictures))] if pictures else []), table]


def _pooled(found: Iterable[Mapping[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    pooled: dict[str, tuple[int, int]] = {}
    for types in found:
        for name, (solved, n) in types.items():
            before = pooled.get(name, (0, 0))
            pooled[name] = (before[0] + solved, before[1] + n)
    return pooled


def _solved(counts: tuple[int, int] | None) -> str:
    return f"{counts[0]}/{counts[1]} ({100 * counts[0] / counts[1]:.0f} %)" if counts and counts[1] else DASH


def _lacking(group: Group) -> list[str]:
    """What is not there, in sentences; one that says so where nothing is missing."""
    said: list[str] = []
    for method in group.methods:
        runs = group.of(method)
        if missing := [str(seed) for seed in group.seeds if seed not in runs]:
            said.append(f"{method}: no finished run of seed {', '.join(missing)}.")
        if without := [str(seed) for seed in runs if AFTER + WITH_SKILLS not in group.runs[method, seed].figures]:
            said.append(f"{method}: not evaluated with skills (seed {', '.join(without)}).")
        if short := [str(seed) for seed, run in runs.items() if len(run.rates.get(ALONE, {})) < 3]:
            said.append(f"{method}: the panel was not played in between (seed {', '.join(short)}).")
        if bare := [str(seed) for seed, run in runs.items() if not run.iterations]:
            said.append(f"{method}: no curves of training were found (seed {', '.join(bare)}).")
        for seed, run in runs.items():
            total = group.runs[method, seed].iterations or 0
            if 0 < run.iterations < total:
                said.append(
                    f"{method} seed {seed}: curves and costs of {run.iterations} of {total} iterations are known."
                )
            said += [f"{method} seed {seed}: {clause}." for clause in run.damage]
            for row in group.runs[method, seed].results["results"]:
                if errors := int(row.get("errors") or 0):
                    said.append(
                        f"{method} seed {seed}: {errors} of {int(row['n']) + errors} episodes of {row['name']!r} ended "
                        "by errors and are in no figure, so it does not compare with others."
                    )
    return said or ["Nothing is missing: every method has every seed, alone and with skills."]


def _origin(group: Group) -> list[Block]:
    first = next(iter(group.runs.values()))
    panel, model = first.results["panel"], first.results["model"]
    tasks = first.training_tasks
    facts = [
        f"Environment: {group.environment or DASH}",
        f"Panel: {_word(panel.get('split'))}, content hash {first.panel}",
        f"Warm start: {_word(model.get('name'))}, hash of the weights {first.warm_start}",
        f"Iterations: {first.iterations}",
    ]
    if tasks is not None:
        facts.append(f"Training tasks: {tasks[0]}, content hash {tasks[1]}")
    rows: list[tuple[str, ...]] = []
    commands: list[str] = []
    for (method, seed), run in group.runs.items():
        record = run.record
        git = record.get("git") or {}
        revision = str(git.get("revision") or DASH)[:12] + (" (changed)" if git.get("changed") else "")
        hashes = (_word(record.get("config_hash")), _word(record.get("skills_hash"))[:12])
        rows.append((method, _word(record.get("started"))[:19], *hashes, revision, run.folder.name, str(seed)))
        command = record.get("command")
        if isinstance(command, list) and command:
            commands.append(f"# {method} seed {seed}\n{shlex.join(map(str, command))}")
    table = Table(("method", "started", "settings", "skills", "revision", "folder"), ("seed",), tuple(rows))
    return [
        Bullets(tuple(facts)),
        table,
        Listing("Commands", tuple(commands)),
        Listing("Versions", tuple(_versions(group.runs))),
    ]


def _versions(runs: Runs) -> list[str]:
    """A line per package; several versions where runs differ."""
    found: dict[str, dict[str, None]] = {}
    for run in runs.values():
        record = run.record
        known = {"python": record.get("python"), "platform": record.get("platform"), **(record.get("versions") or {})}
        for name, version in known.items():
            if version is not None:
                found.setdefault(name, {})[str(version)] = None
    return [f"{name} {', '.join(versions)}" for name, versions in found.items()]


def _word(value: object) -> str:
    return str(value) if is_text(value) and value else DASH
