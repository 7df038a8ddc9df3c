"""Where the configuration files lie: inside an installed package, or at the root of a clone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import sdar
from sdar.errors import UserError

PACKAGE_FOLDER = Path(sdar.__file__).resolve().parent


def config_folder() -> Path:
    """The folder that holds ``train.yaml`` and the groups.

    A wheel carries it as ``sdar/configs``; an editable installation runs from ``src/sdar`` of a clone, where it is
    ``configs`` at the root.

    Raises:
        UserError: neither is there.
    """
    for folder in (PACKAGE_FOLDER / "configs", PACKAGE_FOLDER.parents[1] / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise UserError(f"no configuration was found for {PACKAGE_FOLDER}: the installation is damaged, install sdar again")


def groups(*folders: Path) -> dict[str, list[str]]:
    """The groups and their options: the folders and the YAML files in them, deeper ones as ``folder/name``, sorted."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for file in yaml_files(folder):
            group, *option = file.relative_to(folder).with_suffix("").parts
            if option and file.name[0] != "_":
                found.setdefault(group, set()).add("/".join(option))
    return {name: sorted(found[name]) for name in sorted(found)}


def yaml_files(folder: Path) -> Iterator[Path]:
    """The YAML files that Hydra finds in a folder and those below it, linked ones too, but none of them without end."""
    followed = {folder.resolve(), *folder.resolve().parents}
    for name, inner, files in os.walk(folder, followlinks=True):
        place = Path(name)
        for link in [one for one in inner if (place / one).is_symlink()]:
            target = (place / link).resolve()
            if target in followed:
                inner.remove(link)
            followed.add(target)
        yield from (place / file for file in files if file.endswith(".yaml"))
