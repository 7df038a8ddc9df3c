"""What a command line of ``python -m sdar.compare`` asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import Override

from sdar.config.compose import parse
from sdar.errors import UserError

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_ITEM = re.compile(r"-?\d+(\.\.-?\d+)?")
_LAUNCHER = "hydra/launcher"
_LAUNCHER_SETTING = "hydra.launcher."
_OURS = {
    "run_dir": "each run has a folder of its own under logs_dir",
    "ckpt_path": "stopped runs are found and continued without it",
    "train": "a comparison trains; runs that are finished are reused",
}
_FIXED = ("logs_dir", "threads", "name")


@dataclass(frozen=True)
class Request:
    """A comparison as it was asked for.

    ``fixed``      overrides that all runs share
    ``methods``    one tuple of overrides per method, in the order given; the first is the baseline
    ``seeds``      the pairs, in the order given
    ``launcher``   name of the Hydra launcher; None: chosen by ``jobs``
    ``launcher_overrides``  ``hydra.launcher.*``, for that launcher
    ``jobs``       runs at a time on this machine; None: as the launcher says
    ``config_dir``, ``config_name``  as on the command line of one run
    """

    fixed: tuple[str, ...]
    methods: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...]
    launcher: str | None = None
    launcher_overrides: tuple[str, ...] = ()
    jobs: int | None = None
    config_dir: str | None = None
    config_name: str = "train"

    def overrides(self, method: int, seed: int) -> tuple[str, ...]:
        """The overrides of one run."""
        return (*self.fixed, *self.methods[method], f"seed={seed}")


def read_request(arguments: Sequence[str], *, config_dir: str | None = None, config_name: str = "train") -> Request:
    """Understand the overrides of a comparison.

    Every setting of a run may be fixed (one value) or swept (several, separated by commas; ``a..b`` stands for whole
    numbers, both ends included). ``seed`` makes the pairs, everything else that is swept makes the methods.

    Raises:
        UserError: nothing is swept, a value occurs twice, a setting that a comparison decides itself, ...
    """
    fixed: list[str] = []
    methods: list[tuple[str, ...]] = [()]
    seeds: list[int] = []
    launcher: str | None = None
    launcher_overrides: list[str] = []
    jobs: int | None = None
    swept = False
    for given in arguments:
        text = _expanded(given)
        override = parse([text])[0]
        key = override.key_or_group
        if key == _LAUNCHER:
            launcher = _plain(override, text)
        elif key.startswith(_LAUNCHER_SETTING):
            _plain(override, text)
            launcher_overrides.append(text)
        elif key.startswith(("hydra.", "hydra/")):
            raise UserError(f"{text}: of Hydra's own settings, a comparison takes hydra/launcher and hydra.launcher.*")
        elif key == "jobs":
            jobs = _count(override, text)
        elif key in _OURS:
            raise UserError(f"{text}: a comparison sets {key} itself ({_OURS[key]}); allowed is to leave it out")
        elif key == "seed":
            if seeds:
                raise UserError(f"{text}: seed is given twice; allowed is one list, such as seed=0..4")
            seeds = _seeds(override, text)
            swept = swept or len(seeds) > 1
        elif override.is_sweep_override():
            if key in _FIXED:
                raise UserError(f"{text}: {key} changes no result; allowed is one value for all runs")
            values = _values(override, text)
            methods = [(*method, value) for method in methods for value in values]
            swept = True
        else:
            fixed.append(text)
    if not swept:
        raise UserError(
            "there is nothing to compare: give several values to a setting, to seed, or to both, "
            "as in algorithm=grpo,sdar seed=0..4"
        )
    return Request(
        fixed=tuple(fixed),
        methods=tuple(methods),
        seeds=tuple(seeds or [1]),
        launcher=launcher,
        launcher_overrides=tuple(launcher_overrides),
        jobs=jobs,
        config_dir=config_dir,
        config_name=config_name,
    )


def _expanded(text: str) -> str:
    """``seed=0..2,7`` as ``seed=0,1,2,7``; whatever is no list of whole numbers stays as it is."""
    key, equals, value = text.partition("=")
    items = value.split(",")
    if not equals or ".." not in value or not all(_ITEM.fullmatch(item.strip()) for item in items):
        return text
    numbers: list[str] = []
    for item in items:
        found = _RANGE.fullmatch(item.strip())
        if found is None:
            numbers.append(item.strip())
            continue
        first, last = int(found[1]), int(found[2])
        if first > last:
            raise UserError(f"{text}: the range {item} is empty; allowed is the smaller number first")
        numbers += [str(number) for number in range(first, last + 1)]
    return f"{key}={','.join(numbers)}"


def _values(override: Override, text: str) -> list[str]:
    """The overrides that a sweep stands for, one value each."""
    if not override.is_discrete_sweep():
        raise UserError(f"{text}: a sweep takes lists (a,b,c), a..b and range(...), no intervals")
    values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"{text}: {value} occurs twice; allowed is every value once")
    return values


def _seeds(override: Override, text: str) -> list[int]:
    values = _values(override, text) if override.is_sweep_override() else [text]
    seeds: list[int] = []
    for value in values:
        number = value.partition("=")[2].strip()
        if not number.isdecimal():
            raise UserError(f"{text}: allowed are whole numbers from 0, such as seed=0..4 or seed=1,2,3")
        if int(number) in seeds:
            raise UserError(f"{text}: {number} occurs twice; allowed is every seed once")
        seeds.append(int(number))
    return seeds


def _plain(override: Override, text: str) -> str:
    if override.is_sweep_override() or override.is_delete():
        raise UserError(f"{text}: allowed is one value")
    return str(override.value())


def _count(override: Override, text: str) -> int:
    value = _plain(override, text)
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"{text}: allowed is a whole number at least 1, the runs at a time")
    return int(value)
