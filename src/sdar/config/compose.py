"""From overrides on the command line to one plain configuration, with every failure told in one sentence."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar.config.sources import config_folder, groups
from sdar.errors import UserError

_OPTIONAL_GROUPS = frozenset({"experiment"})


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

    Raises:
        UserError: an override that cannot be read, a group or an option of a group that does not exist.
    """
    folders = [config_folder()]
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise UserError(f"--config-dir must be a folder of configuration files, got {config_dir}")
        folders.append(Path(config_dir).resolve())
        # Hydra looks for the first file in one folder, and for all others in the search path, too.
        folders.sort(key=lambda folder: not (folder / f"{config_name}.yaml").is_file())
    options = groups(*folders)
    prepared = [text for override in parse(overrides) if (text := _prepared(override, options)) is not None]
    if config_dir is not None:
        prepared.append(f"hydra.searchpath=[{_quoted(f'file://{folders[1]}')}]")
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(folders[0])):
            config = compose(config_name, overrides=prepared)
    except MissingConfigException as error:
        raise UserError(_one_sentence(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"the overrides {' '.join(overrides)} cannot be applied: {_one_sentence(error)}") from error
    OmegaConf.set_struct(config, False)
    return config


def parse(overrides: Sequence[str]) -> list[Override]:
    """Read overrides one by one.

    Raises:
        UserError: naming the override that cannot be read.
    """
    parser = OverridesParser.create()
    parsed: list[Override] = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except (OverrideParseException, HydraException) as error:
            raise UserError(
                f"the override {text!r} cannot be read: it must be name=value (quote values with spaces)"
            ) from error
    return parsed


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
            columns.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            raise UserError(f"{override.input_line}: a sweep takes lists (a,b,c) and range(...), no intervals")
    return [list(combination) for combination in itertools.product(*columns)]


def _prepared(override: Override, options: dict[str, list[str]]) -> str | None:
    """The override as Hydra is to see it: group choices checked, values forced in. None: it says what holds anyway."""
    text = override.input_line or ""
    key = override.key_or_group
    if override.is_hydra_override():
        raise UserError(_hydra_setting(text, key))
    if override.is_sweep_override():
        raise UserError(f"{text}: one run takes one value per setting; several values need --multirun")
    if override.is_delete():
        return text
    if key in options and override.package is None:
        value = override.value()
        if value is None and key in _OPTIONAL_GROUPS:
            return None  # no file chosen; Hydra has no word for it
        if not isinstance(value, str) or value not in options[key]:
            raise UserError(_unknown_option(key, value, options[key]))
        return f"{key}={value}"
    return f"++{override.get_key_element().lstrip('+')}={text.partition('=')[2]}"


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
    shown = "null" if value is None else value
    return f"{group}={shown}: there is no such {group}; {hint}Allowed: {', '.join(allowed)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _one_sentence(error: BaseException) -> str:
    """The first line of a message that may have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
