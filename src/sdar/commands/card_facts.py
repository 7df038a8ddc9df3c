"""What a model card can say, from the records of the run whose checkpoint is exported. They may be somebody else's."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdar.errors import UserError
from sdar.files import MB, parse_yaml, read_text
from sdar.policy.model_card import FILE_NAME, CardFacts, Figure, Panel
from sdar.run.folder import RESULTS_FILE, RUN_FILE, read_record, run_config

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")
_PACKAGES = ("sdar", "torch", "transformers", "lightning", "peft", "bitsandbytes")
_OUR_LICENSE = "apache-2.0"
_LONGEST = 2000


def card_facts(
    checkpoint: Path,
    model: Mapping[str, Any],
    policy: LanguageModel,
    *,
    name: str,
    iterations: int,
    license: str | None = None,
    moved: str = "",
) -> CardFacts:
    """The facts of an export.

    Args:
        checkpoint: in its run folder, or elsewhere; then nothing is known of the run.
        model: settings of the model.
        policy: the exported model.
        name: what it is called.
        iterations: that the checkpoint has learned from.
        license: given by the user; None: that of the base, where it is known.
        moved: what is said of weights that are not quite the trained ones.
    """
    folder = checkpoint.resolve().parent.parent
    settings = run_config(checkpoint) or {}
    own = bool(settings)
    record = (read_record(folder / RUN_FILE) if own else None) or {}
    results = (read_record(folder / RESULTS_FILE) if own else None) or {}
    base, hub_id, its_license = _base(model)
    target = text_in(settings, "environment", "_target_")
    revision = text_in(record, "git", "revision")
    changed = " with changes" if isinstance(record.get("git"), dict) and record["git"].get("changed") is True else ""
    about = {
        "base": f"{base} ({policy.architecture})",
        "content hash of the base's weights": policy.content_hash,
        "trained": "all weights" if policy.lora is None else f"adapters, merged: {policy.lora.record()}",
        "method": text_in(settings, "algorithm", "name"),
        "environment": target and target.rpartition(".")[2],
        "iterations": str(iterations),
        "seed": text_in(settings, "seed"),
        "continued from an earlier run": "yes" if isinstance(record.get("resumed_from"), str) else None,
        "hash of the run's configuration": text_in(record, "config_hash"),
        "git revision of sdar": revision and revision + changed,
        "quantized while it was trained": moved,
    }
    template = str(policy.tokenizer.chat_template or "")
    before, after, panel = _figures(results, iterations)
    return CardFacts(
        name=name,
        base_model=hub_id,
        license=license or its_license,
        domain=text_in(settings, "domain"),
        about={what: value for what, value in about.items() if value},
        panel=Panel(*panel, seed=_count(record.get("evaluation_seed"))),
        model=after,
        before=before,
        sampling=_sampling(settings),
        thinking=model.get("enable_thinking") is True if "enable_thinking" in template else None,
        command=_command(record.get("command")),
        versions=_versions(record),
    )


def text_in(record: Any, *names: str) -> str | None:
    """A number or one line of text inside nested mappings; None: it is not there, or something else is."""
    for name in names:
        record = record.get(name) if isinstance(record, Mapping) else None
    text = str(record) if isinstance(record, str | int) and not isinstance(record, bool) else ""
    return text if text and text.isprintable() and len(text) <= _LONGEST else None


def check_license(given: str | None) -> str | None:
    """The license that the user gave. UserError: it is no identifier of the Hub's."""
    if given is not None and not _LICENSE.fullmatch(given):
        raise UserError(f"license must be an identifier of the Hub, such as apache-2.0, got {given!r}")
    return given


def _base(model: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """Name, id on the Hub and license of the model that training began with. A folder is called by its last name."""
    name = str(model.get("name") or model.get("path") or "")
    function = str(model.get("_target_")).rpartition(".")[2]
    if Path(name).is_dir():
        return Path(name).resolve().name, None, _license_in(Path(name))
    if function == "hf_model":
        return name, name if _HUB_ID.fullmatch(name) else None, None
    # A model that comes with sdar has sdar's license.
    return name or function, None, _OUR_LICENSE if function == "tiny_model" else None


def _license_in(folder: Path) -> str | None:
    """The license that the card of a folder names."""
    try:
        _, front, _ = read_text(folder / FILE_NAME, MB).split("---\n", 2)
        found = parse_yaml(front)
    except ValueError:  # there is no front matter, or it is no YAML
        return None
    except UserError:  # there is no such file
        return None
    given = found.get("license") if isinstance(found, dict) else None
    return given if isinstance(given, str) and _LICENSE.fullmatch(given) else None


def _figures(
    results: Mapping[str, Any], iterations: int
) -> tuple[list[Figure], list[Figure], tuple[str | None, int | None, str | None]]:
    """Figures before training and of these very weights, and split, size and hash of their panel.

    The last table is of the weights after the last iteration; those of earlier ones are in the evaluations on the way.
    """
    table = _rows(results.get("results"))
    before = _named(table, "warm start", "warm start, with skills", "before training")
    training = results.get("training")
    if isinstance(training, Mapping) and training.get("iterations") == iterations:
        after = _named(table, "trained", "trained, with skills", "this model")
    else:
        found = [row for row in _rows(results.get("evaluations")) if row.get("iterations") == iterations]
        after = _named(found, "val", "val_with_skills", "this model")
    panel: Any = results.get("panel")
    counts = panel.get("tasks_by_type") if isinstance(panel, Mapping) else None
    sizes = [_count(count) for count in counts.values()] if isinstance(counts, Mapping) else []
    size = sum(count or 0 for count in sizes) if sizes and None not in sizes else None
    return before, after, (text_in(panel, "split"), size, text_in(panel, "content_hash"))


def _named(rows: Sequence[Mapping[str, Any]], alone: str, skilled: str, agent: str) -> list[Figure]:
    """The figures of two rows, without skills and with."""
    names = {alone: False, skilled: True}
    found = [_figure(row, agent, names[row["name"]]) for row in rows if row.get("name") in names]
    return [figure for figure in found if figure is not None]


def _rows(value: Any) -> list[Mapping[str, Any]]:
    """The rows that have a name."""
    rows = value if isinstance(value, list) else []
    return [row for row in rows if isinstance(row, Mapping) and isinstance(row.get("name"), str)]


def _figure(row: Mapping[str, Any], agent: str, skills: bool) -> Figure | None:
    """The figure of a row of ``results.json``; None: nothing was played, or the row is damaged."""
    n, successes, errors = (_count(row.get(name)) for name in ("n", "successes", "errors"))
    if not n or successes is None or successes > n:
        return None
    interval: Any = row.get("interval_95")
    sound = (
        isinstance(interval, list)
        and len(interval) == 2
        and all(isinstance(bound, int | float) and math.isfinite(bound) and 0 <= bound <= 1 for bound in interval)
    )
    return Figure(agent, skills, successes, n, tuple(interval) if sound else None, errors or 0)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32 else None


def _sampling(settings: Mapping[str, Any]) -> dict[str, float] | None:
    """How the panel was sampled; None where that is not known as a whole."""
    from sdar.config.build import build_settings
    from sdar.rollout.settings import SamplingConfig

    evaluation = settings.get("evaluation")
    given = evaluation.get("sampling") if isinstance(evaluation, Mapping) else None
    if not isinstance(given, Mapping):
        return None
    try:
        sampling: SamplingConfig = build_settings(SamplingConfig, given, "evaluation.sampling")
    except UserError:
        return None
    found = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    return {**found, "max_response_tokens": sampling.max_response_tokens}


def _command(words: Any) -> str | None:
    """The command in one line, the home directory as ``~``."""
    if not isinstance(words, Sequence) or isinstance(words, str) or not all(isinstance(word, str) for word in words):
        return None
    line = shlex.join(words).replace(str(Path.home()), "~") if words else ""
    return line if line and line.isprintable() and len(line) <= _LONGEST else None


def _versions(record: Mapping[str, Any]) -> dict[str, str]:
    given = {name: text_in(record, "versions", name) for name in _PACKAGES}
    given = {"python": text_in(record, "python"), **given}
    return {name: version for name, version in given.items() if version is not None}
