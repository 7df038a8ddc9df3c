"""From overrides on the command line to one plain configuration, with every failure told in one sentence."""

from __future__ import annotations

import copy
import difflib
import functools
import itertools
import math
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar.config.paths import at_home, is_path, paths, quoted, written
from sdar.config.plugins import is_allowed
from sdar.config.signatures import find, signature
from sdar.config.sources import config_folder, groups, yaml_files
from sdar.config.words import shown
from sdar.errors import UserError
from sdar.files import MB, FileError, check_yaml, read_yaml

_OPTIONAL_GROUPS = frozenset({"experiment"})
_LISTS = frozenset({"logger"})
"""Groups of which several files may be chosen at once, as in ``logger=[tensorboard,csv]``."""
_PROMPTS = ("list_actions", "prompt_style")
"""What the files of models say to every environment; one of a user's need not take it."""
_LONGEST_NAME = 200
_DEEPEST = 20
_MOST_RUNS = 10_000
_LIST_AT_MOST = 20
_VALUE = "++"
"""What an override that sets a value begins with once it is prepared."""
_READ_AS_TEXT = re.compile(r"[\w/\\.+$%*@?|: \t-]*", re.ASCII)
"""Characters that stand for themselves in a value of Hydra's grammar."""


def compose_config(
    overrides: Sequence[str], *, config_dir: str | Path | None = None, config_name: str = "train"
) -> DictConfig:
    """Compose ``train.yaml`` with the overrides of a command line.

    Every ``key=value`` is taken as it stands, also where no file mentions the key; whether the key exists and the
    value fits is decided by :func:`sdar.run.validate.validate`, against the signatures of what is configured. So
    ``+trainer.max_epoch=3`` is refused like ``trainer.max_epoch=3``, and a setting that the files leave at its
    default needs no plus.

    Args:
        overrides: as on the command line.
        config_dir: a folder of one's own, whose files are found with ours: ``--config-dir``.
        config_name: the file to begin with: ``--config-name``.

    Where both folders have a file of that name, ours begins, and then a file of one's own that has the name of another
    one of ours would never be read: it is refused. A folder with a file of that name begins, and its files go first.

    A setting that holds a path (:mod:`sdar.config.paths`) has what stands behind its first ``=``, ``~`` replaced.
    What a model's file says about prompts is left out where the environment takes no such setting.

    Raises:
        UserError: an override that cannot be read, a group or an option of a group that does not exist.
    """
    folders = [config_folder()]
    if config_dir is not None:
        config_dir = at_home(str(config_dir))
        if not os.path.isdir(config_dir):  # noqa: PTH112 - also false for a name that is too long
            raise UserError(f"--config-dir must be a folder of configuration files, got {config_dir}")
        folders.append(Path(config_dir).resolve())
        for file in yaml_files(folders[1]):
            _check_file(file)
    # Hydra looks for the first file in one folder, and for all others in the search path, too.
    folders.sort(key=lambda folder: not _has(folder, config_name))
    if not _has(folders[0], config_name):
        where = "" if config_dir is None else f" or {config_dir}"
        raise UserError(
            f"--config-name must be the name of a file in {config_folder()}{where}, got {shown(config_name)}"
        )
    if config_dir is not None and folders[0] == config_folder():
        _check_names(folders[1])
    options = groups(*folders)
    read = parse(overrides, several=False)
    prepared = [(override, text) for override in read if (text := _prepared(override, options)) is not None]
    # Settings change no choice: with our own files alone they are put into a copy of what the choices give.
    apart = config_dir is None and not any(override.is_delete() for override in read)
    # Beside them lies what is no group, such as a folder skills/, whose name Hydra would take for one.
    values = [o for o, text in prepared if text.startswith(_VALUE) and (apart or _is_folder(folders, o.key_or_group))]
    choices = [text for override, text in prepared if override not in values]
    if config_dir is not None:
        choices.append(f"hydra.searchpath=[{quoted(f'file://{folders[1]}')}]")
    try:
        composed = _composed if apart else _composed.__wrapped__
        config = copy.deepcopy(composed(folders[0], config_name, tuple(choices)))
        for override in values:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
    except MissingConfigException as error:
        raise UserError(_one_sentence(error)) from error
    except Exception as error:  # what they raise of their own and what they let through: they read the user's text
        raise UserError(f"the overrides {' '.join(overrides)} cannot be applied: {_one_sentence(error)}") from error
    OmegaConf.set_struct(config, False)
    _leave_out_prompts(config, [override.key_or_group for override in read])
    for name, path in list(paths(OmegaConf.to_container(config, resolve=False))):
        if path.startswith("~"):
            OmegaConf.update(config, name, at_home(path))
    return config


def _check_names(folder: Path) -> None:
    """UserError where a file has the name of one of ours, which Hydra would read in its place without a word."""
    for file in yaml_files(folder):
        ours = config_folder() / file.relative_to(folder)
        if ours.is_file() and ours.read_bytes() != file.read_bytes():
            raise UserError(
                f"--config-dir: {file} has the name of one of ours, which would be read instead; give it another name"
            )


def _leave_out_prompts(config: DictConfig, typed: Sequence[str]) -> None:
    """Take away what the environment does not take, unless it was ``typed``: then it is refused with its name."""
    environment = config.get("environment")
    target = environment.get("_target_") if isinstance(environment, DictConfig) else None
    source = find(target) if isinstance(target, str) and is_allowed(target) else None
    if source is None:
        return
    taken = signature(source)
    for name in () if taken.open else _PROMPTS:
        if name in environment and name not in taken.parameters and f"environment.{name}" not in typed:
            del environment[name]


def _is_folder(folders: Sequence[Path], name: str) -> bool:
    return any(os.path.isdir(folder / name) for folder in folders)  # noqa: PTH112 - also false for a long name


def _has(folder: Path, name: str) -> bool:
    """Whether a folder has a configuration file of that name; false for names that no file can have."""
    return os.path.isfile(folder / f"{name}.yaml")  # noqa: PTH113


def _check_file(file: Path) -> None:
    """FileError: Hydra, which opens whatever is there and takes aliases, would not end, or read files unchecked."""
    check_yaml(file, MB)
    try:
        content = read_yaml(file, MB)
    except FileError:
        return  # Hydra says so if it is of use
    if isinstance(content, dict) and ".." in str(content.get("defaults")):
        raise FileError(file, "must name files of the same --config-dir or ours in its defaults, got one with ..")


@functools.lru_cache(maxsize=256)
def _composed(folder: Path, name: str, overrides: tuple[str, ...]) -> DictConfig:
    """What Hydra makes of overrides; a tenth of a second."""
    with initialize_config_dir(version_base="1.3", config_dir=str(folder)):
        return compose(name, overrides=list(overrides))


def parse(overrides: Sequence[str], *, several: bool = True) -> list[Override]:
    """Read overrides one by one; ``several``: commas in a path separate values.

    Raises:
        UserError: naming the override that cannot be read.
    """
    return [_parsed(text, several) for text in overrides]


def _parsed(text: str, several: bool) -> Override:
    key, equals, value = text.partition("=")
    name = key.lstrip("+")
    if len(name) > _LONGEST_NAME or _depth(value) > _DEEPEST:
        raise UserError(
            f"the override {shown(text)} cannot be read: a name may have {_LONGEST_NAME} letters, and a value "
            f"{_DEEPEST} levels of brackets"
        )
    if equals and is_path(name):
        text = f"{key}={written(value, several=several)}"
    override = _understood(text)
    if override is None or not override.key_or_group or "@" in name:
        raise UserError(_unreadable(text, key, value if equals else None))
    return override


def _understood(text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(text)
    except (HydraException, OmegaConfBaseException, ValueError, RecursionError):
        return None


def _depth(value: str) -> int:
    """How deep brackets are nested, those inside quotes among them."""
    steps = (1 if letter in "[{(" else -1 for letter in value if letter in "[{()}]")
    return max(itertools.accumulate(steps), default=0)


def _unreadable(text: str, key: str, value: str | None) -> str:
    """What is wrong with an override, and the words for the shell that mean what was typed."""
    told = f"the override {shown(text)} cannot be read"
    if value is None or "@" in key or _understood(f"{key}=x") is None or not key.strip("+~"):
        return f"{told}: it must be name=value"
    if "${" in value or not value.isprintable():
        return f"{told}: its value must be a text, a number, a list or ${{another.setting}}"
    letter = value[_READ_AS_TEXT.match(value).end() :][:1]  # type: ignore[union-attr]
    at = f" at {letter!r}: it must be name=value, and a text with this character" if letter else ": its value"
    line = shlex.quote(f"{key}={quoted(value)}")
    return f"{told}{at} needs quotes" + (f", as in {line}" if len(line) <= 160 else f': {key}="..."')


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """All combinations of overrides with several values (``a=1,2 b=3,4`` gives four), each without any left.

    Raises:
        UserError: an override that cannot be read, or an interval, which has no finite list of values.
    """
    columns: list[list[str]] = []
    for override in parse(overrides):
        if not override.is_sweep_override():
            columns.append([override.input_line or ""])
        elif override.is_discrete_sweep():
            values = itertools.islice(override.sweep_string_iterator(), _MOST_RUNS + 1)
            columns.append([f"{override.get_key_element()}={value}" for value in values])
        else:
            raise UserError(f"{override.input_line}: a sweep takes lists (a,b,c) and range(...), no intervals")
    if math.prod(map(len, columns)) > _MOST_RUNS:
        raise UserError(f"a sweep may have at most {_MOST_RUNS} runs, got more: {shown(' '.join(overrides))}")
    return [list(combination) for combination in itertools.product(*columns)]


def _prepared(override: Override, options: dict[str, list[str]]) -> str | None:
    """The override as Hydra is to see it: group choices checked, values forced in. None: it says what holds anyway."""
    text = override.input_line or ""
    key = override.key_or_group
    if override.is_hydra_override():
        raise UserError(_hydra_setting(text, key))
    if override.is_sweep_override():
        raise UserError(
            f"{text}: one run takes one value per setting; several values need --multirun, a text with commas quotes"
        )
    if override.is_delete():
        return text
    if key in options and override.package is None:
        value = override.value()
        if value is None and key in _OPTIONAL_GROUPS:
            return None  # no file chosen; Hydra has no word for it
        if key in _LISTS and isinstance(value, list) and value:
            wrong = [item for item in value if item not in options[key]]
            if wrong:
                raise UserError(_unknown_option(key, wrong[0], options[key]))
            return f"{key}=[{','.join(value)}]"
        if not isinstance(value, str) or value not in options[key]:
            raise UserError(_unknown_option(key, value, options[key]))
        return f"{key}={value}"
    return f"{_VALUE}{override.get_key_element().lstrip('+')}={text.partition('=')[2]}"


_INSTEAD_OF_HYDRA = {
    "hydra.run": "set run_dir=FOLDER, or logs_dir=FOLDER",
    "hydra.sweep": "set logs_dir=FOLDER; every run of a sweep has a folder of its own below it",
    "hydra.searchpath": "give the folder as --config-dir FOLDER",
    "hydra.launcher": "it is for several runs: add --multirun",
    "hydra/launcher": "it is for several runs: add --multirun",
    "hydra/sweeper": "every combination is run; give the values as lists, as in seed=1,2,3",
    "hydra.sweeper": "every combination is run; give the values as lists, as in seed=1,2,3",
    "hydra.verbose": "everything that is said is in the run folder's run.log",
    "hydra/job_logging": "everything that is said is in the run folder's run.log",
    "hydra/hydra_logging": "everything that is said is in the run folder's run.log",
}


def _hydra_setting(text: str, key: str) -> str:
    """What to use instead of one of Hydra's own settings, which have no effect: this program starts the runs."""
    instead = next((words for name, words in _INSTEAD_OF_HYDRA.items() if key.startswith(name)), None)
    return f"{text} has no effect here; {instead or 'the folder of a run is set by run_dir=FOLDER'}"


def _unknown_option(group: str, value: object, allowed: list[str]) -> str:
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    given = "null" if value is None else value
    listed = ", ".join(allowed) if len(allowed) <= _LIST_AT_MOST else f"the {len(allowed)} that --help lists"
    return f"{group}={given}: there is no such {group}; {hint}Allowed: {listed}"


def _one_sentence(error: BaseException) -> str:
    """The first line of a message that may have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
