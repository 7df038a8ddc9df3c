"""Parts of a configuration that are of use without a run: an environment to play, skills to look at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from sdar.config.build import build
from sdar.config.check import check_value
from sdar.config.compose import compose_config
from sdar.config.paths import check_paths
from sdar.config.resolve import resolve
from sdar.config.signatures import find, signature
from sdar.errors import UserError
from sdar.run.rules.renamed import check_renamed


def compose_parts(
    overrides: Sequence[str], allowed: Collection[str], *, config_dir: str | None = None, config_name: str = "train"
) -> DictConfig:
    """Compose a configuration of which only some groups are of interest.

    Raises:
        UserError: an override of another group, or one that cannot be applied.
    """
    for override in overrides:
        if override.lstrip("+~").partition("=")[0].split(".")[0] not in allowed:
            raise UserError(f"{override}: only settings of {', '.join(allowed)} can be given here")
    config = compose_config(overrides, config_dir=config_dir, config_name=config_name)
    check_renamed(config)
    return config


def part(config: Mapping[str, Any] | DictConfig, name: str) -> Any:
    """A group in plain values, its names, types and ranges checked; the other groups may lack what a run needs.

    A plain mapping is what a run folder holds. It may be somebody else's, so it is data: nothing in it is resolved,
    and it names objects of the packages alone that the user allows.

    Raises:
        UserError: a value that is missing, cannot be resolved, or is wrong.
    """
    if name not in config:
        raise UserError(f"{name} is missing from the configuration")
    value = resolve(config, name)
    frame = find("sdar.run.schema.Configuration")
    assert frame is not None
    check_value(value, signature(frame).parameters[name].hint, name)
    check_paths(value, name)
    return value


def build_part(config: Mapping[str, Any] | DictConfig, name: str) -> Any:
    """The object of a group; see :func:`part`."""
    return build(part(config, name), name)
