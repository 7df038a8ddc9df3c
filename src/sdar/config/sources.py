"""Where the configuration files lie: inside an installed package, or at the root of a clone."""

from __future__ import annotations

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
    for sub in (sub for folder in folders for sub in folder.iterdir() if sub.is_dir()):
        files = (file for file in sub.rglob("*.yaml") if file.name[0] != "_")
        found.setdefault(sub.name, set()).update(file.relative_to(sub).with_suffix("").as_posix() for file in files)
    return {name: sorted(found[name]) for name in sorted(found) if found[name]}
