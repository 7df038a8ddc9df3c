"""What a command line of ``sdar compare`` asks for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sdar.config.compose import parse, sweep
from sdar.errors import UserError

_ITEM = re.compile(r"(-?\d+)(?:\.\.(-?\d+))?")
_MOST = 10_000
_LAUNCHER = "hydra/launcher"
_LAUNCHER_SETTING = "hydra.launcher."
_OURS = {
    "run_dir": "each run has its own folder under logs_dir",
    "ckpt_path": "stopped runs are found and continued without it",
    "train": "a comparison trains; finished runs are reused",
}
_CHANGE_NO_RESULT = ("logs_dir", "threads", "name", "jobs", _LAUNCHER)


@dataclass(frozen=True)
class Request:
    """A comparison as it was asked for.

    ``fixed``      overrides that all runs share
    ``methods``    one tuple of overrides per method, in the order given; the first is the baseline
    ``seeds``      the pairs, in the order given
    ``launcher``   name of the Hydra launcher; None: chosen by ``jobs``
    ``launcher_overrides``  ``hydra.launcher.*``, for that launcher
    ``jobs``       runs at a time on this machine; None: the launcher decides
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
    """Parse the overrides of a comparison.

    A setting has one value, or several separated by commas; ``a..b`` stands for whole numbers, both ends included. The
    values of ``seed`` make the pairs. The combinations of all other settings with several values make the methods.

    UserError: no setting has several values, a value occurs twice, or a setting cannot be given here.
    """
    fixed: list[str] = []
    swept: list[list[str]] = []
    seeds: tuple[int, ...] = ()
    launcher: str | None = None
    launcher_overrides: list[str] = []
    jobs: int | None = None
    for text in map(_expanded, arguments):
        (override,) = parse([text])
        key = override.key_or_group
        values = [value for (value,) in sweep([text])]
        for value in values:
            if values.count(value) > 1:
                raise UserError(f"{text}: {value} occurs twice; give every value once")
        single = not override.is_sweep_override() and not override.is_delete()
        if not single and (key in _CHANGE_NO_RESULT or key.startswith(_LAUNCHER_SETTING)):
            raise UserError(f"{key} must have one value, as it changes no result, got {text}")
        if key == _LAUNCHER:
            launcher = str(override.value())
        elif key.startswith(_LAUNCHER_SETTING):
            launcher_overrides.append(text)
        elif key.startswith(("hydra.", "hydra/")):
            raise UserError(f"{text}: of Hydra's own settings, a comparison takes hydra/launcher and hydra.launcher.*")
        elif key == "jobs":
            jobs = _number(text, 1)
        elif key in _OURS:
            raise UserError(f"{text}: a comparison sets {key} itself ({_OURS[key]}); leave it out")
        elif key == "seed":
            if seeds:
                raise UserError(f"{text}: seed is given twice; give one list, such as seed=0..4")
            seeds = tuple(_number(value, 0) for value in values)
        elif override.is_sweep_override():
            swept.append(values)
        else:
            fixed.append(text)
    if not swept and len(seeds) < 2:
        raise UserError(
            "there is nothing to compare; give several values to a setting, to seed, or to both, "
            "as in algorithm=grpo,sdar seed=0..4"
        )
    return Request(
        fixed=tuple(fixed),
        methods=tuple(itertools.product(*swept)),
        seeds=seeds or (1,),
        launcher=launcher,
        launcher_overrides=tuple(launcher_overrides),
        jobs=jobs,
        config_dir=config_dir,
        config_name=config_name,
    )


def _expanded(text: str) -> str:
    """``seed=0..2,7`` as ``seed=0,1,2,7``. Any other text is returned as it is."""
    key, _, value = text.partition("=")
    items = [found for item in value.split(",") if (found := _ITEM.fullmatch(item.strip()))]
    if ".." not in value or len(items) <= value.count(","):
        return text
    numbers: list[int] = []
    for item in items:
        first, last = int(item[1]), int(item[2] or item[1])
        if first > last:
            raise UserError(f"{text}: the range {item[0]} is empty; give the smaller number first")
        if last - first >= _MOST:
            raise UserError(f"{text}: the range {item[0]} has more than {_MOST} numbers")
        numbers += range(first, last + 1)
    return f"{key}={','.join(map(str, numbers))}"


def _number(text: str, least: int) -> int:
    name, _, value = text.partition("=")
    if not value.strip().isdecimal() or int(value) < least:
        raise UserError(f"{name} must be a whole number >= {least}, got {value}")
    return int(value)
