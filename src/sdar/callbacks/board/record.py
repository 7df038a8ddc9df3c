"""What a run folder says of its run before it starts: settings, command, revision, versions."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar.config.compose import compose_config
from sdar.errors import UserError
from sdar.files import MB, FileError, read_json, read_yaml

CONFIG_FILE, RUN_FILE = "config.yaml", "run.json"
"""As :mod:`sdar.run.folder` writes them, which is a floor above."""

_NOT_SAID = ("algorithm", "environment", "seed", "run_dir", "logs_dir", "name", "threads", "ckpt_path", "train")
_NOT_SAID_BELOW = ("callbacks", "logger", "rank_timeout_minutes", "hydra")
"""Settings that a title does not repeat, or that change nothing of what is learned."""
_LONGEST_TITLE = 120


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder has it.

    ``settings``  all of them, resolved
    ``run``       ``run.json``; {} where there is none
    """

    settings: Mapping[str, Any]
    run: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path) -> RunRecord | None:
        """What a folder holds; None: it is not that of a run, as in a program of the user's own."""
        if not (folder / CONFIG_FILE).is_file():
            return None
        settings, run = read_yaml(folder / CONFIG_FILE, MB), None
        with suppress(FileError):
            run = read_json(folder / RUN_FILE, MB)
        return cls(settings, run if isinstance(run, dict) else {}) if isinstance(settings, dict) else None

    @property
    def command(self) -> list[str]:
        """The words that started the run; [] where nobody wrote them down."""
        words = self.run.get("command")
        return [str(word) for word in words] if isinstance(words, list) else []

    @property
    def differs(self) -> str:
        """What the command sets beside method, environment and seed, as it was typed."""
        named = (word for word in self.command if "=" in word and not word.startswith("-"))
        return ", ".join(
            word
            for word in named
            if (name := word.lstrip("+~").partition("=")[0]) not in _NOT_SAID
            and name.replace("/", ".").partition(".")[0] not in _NOT_SAID_BELOW
        )

    @property
    def title(self) -> str:
        """Method, environment, seed and what differs; at most 120 letters."""
        names = [look_up(self.settings, "algorithm.name"), self.settings.get("domain")]
        parts = [str(name) for name in names if name] + [f"seed {self.settings.get('seed')}"]
        title = " - ".join([*parts, self.differs] if self.differs else parts)
        return title if len(title) <= _LONGEST_TITLE else f"{title[: _LONGEST_TITLE - 3]}..."

    @property
    def command_line(self) -> str:
        """The command as one types it."""
        return shlex.join(self.command)

    def changed(self) -> dict[str, tuple[Any, Any]]:
        """Settings that are not those of a run without any word: name -> (its value, the default)."""
        default: dict[str, Any] = {}
        with suppress(UserError, OmegaConfBaseException):
            default = dict(flat(cast("dict[str, Any]", OmegaConf.to_container(compose_config(()), resolve=True))))
        mine = dict(flat(self.settings))
        names = [name for name in mine if name != "run_dir" and (name not in default or mine[name] != default[name])]
        # Where the folder is part of another setting, as that of a log, it says nothing new.
        folder = str(self.settings.get("run_dir"))
        names = [name for name in names if folder not in str(mine[name])]
        # A group of its own that another group holds, as algorithm.objective.gate, is named once.
        kept = [name for name in names if not any(name.endswith(f".{other}") for other in names)]
        return {name: (mine[name], default.get(name)) for name in kept}


def title_of(folder: str | Path | None) -> str | None:
    """The title of the run whose folder it is; None: it is no run's, or cannot be read."""
    with suppress(UserError):
        record = None if folder is None else RunRecord.of(Path(folder))
        return None if record is None else record.title
    return None


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its whole name, as on the command line."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def look_up(settings: Mapping[str, Any], name: str) -> Any:
    """The setting of a whole name; None where there is none."""
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
