"""Everything that can be said about a configuration before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig

from sdar.config.check import check_settings, is_node
from sdar.config.compose import compose_config
from sdar.config.paths import check_paths
from sdar.config.resolve import resolve
from sdar.config.signatures import find
from sdar.config.words import shown
from sdar.errors import UserError
from sdar.run.folder import LAST, LAST_CHECKPOINT, LAST_OR_NEW
from sdar.run.rules.names import check_logger, check_name
from sdar.run.rules.renamed import check_renamed
from sdar.run.rules.trainer import check_trainer

if TYPE_CHECKING:
    from sdar.run.settings import RunSettings

UNSET = "unset"
"""``run_dir`` of a configuration that is validated before its folder is chosen."""


def compose(
    overrides: Sequence[str] = (), *, config_dir: str | Path | None = None, config_name: str = "train"
) -> RunSettings:
    """The validated settings of a run, from overrides as on the command line.

    Args:
        overrides: such as ``["environment=webshop", "gate.beta=10"]``.
        config_dir: a folder of configuration files of one's own, whose files are found with ours.
        config_name: the file to begin with.

    Raises:
        UserError: the first mistake found, in one sentence.
    """
    if isinstance(overrides, str):
        raise UserError(f"overrides must be a list of texts, got the text {overrides!r}; write [{overrides!r}]")
    config = compose_config(overrides, config_dir=config_dir, config_name=config_name)
    if config.get("run_dir") is None:
        config["run_dir"] = UNSET
    return validate(config)


def validate(config: DictConfig) -> RunSettings:
    """Check a composed configuration: names and types first, which needs no heavy import, then what must agree.

    Raises:
        UserError: the first mistake found, in one sentence.
    """
    check_renamed(config)
    plain = cast("dict[str, Any]", resolve(config))
    check_names(plain)
    from sdar.run.rules.processes import check_processes
    from sdar.run.rules.retrieval import check_retrieval
    from sdar.run.settings import RunSettings

    settings = RunSettings.build(plain)
    check_retrieval(plain)
    check_processes(settings)
    return settings


def check_names(plain: Mapping[str, Any]) -> None:
    """Refuse names, types and ranges that do not exist, and a trainer or checkpoint that cannot be used."""
    teacher = plain.get("teacher")
    if isinstance(teacher, Mapping) and "_target_" not in teacher:
        raise UserError(
            f"teacher=none, but algorithm={plain['algorithm'].get('name')} distils from a teacher; set teacher=skills, "
            "or algorithm=grpo"
        )
    frame = find("sdar.run.schema.Configuration")
    assert frame is not None
    for group in ("callbacks", "logger"):
        _check_objects(plain.get(group), group)
    check_settings(frame, plain, "")
    check_trainer(plain)
    check_paths(plain)
    check_name(plain["name"])
    for name, node in plain["logger"].items():
        check_logger(name, node or {})
    _check_checkpoint(plain["ckpt_path"])


def _check_objects(nodes: Any, path: str) -> None:
    for name, node in nodes.items() if isinstance(nodes, Mapping) else ():
        # null: switched off from the command line
        if node is not None and not is_node(node):
            raise UserError(f"{path}.{name} must be null or a mapping with _target_, got {shown(node)}")


def _check_checkpoint(path: str | None) -> None:
    if path is None or path in (LAST, LAST_OR_NEW):
        return
    if not Path(path).exists():
        raise UserError(f"ckpt_path={path}: there is no such file; it must be a checkpoint, 'last' or null")
    if not Path(path).is_file() and not Path(path).is_dir():
        raise UserError(f"ckpt_path={path} is a device or a pipe; it must be a checkpoint, 'last' or null")
    if Path(path).is_dir():
        inside = next((file for file in (Path(path) / LAST_CHECKPOINT, Path(path) / "last.ckpt") if file.is_file()), "")
        told = f"the file {inside}" if inside else "a file, such as a run's checkpoints/last.ckpt"
        raise UserError(f"ckpt_path={path} is a folder; it must be {told}, 'last' or null")
