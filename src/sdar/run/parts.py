"""Parts of a configuration that are of use without a run: an environment to play, skills to look at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar.config.build import build
from sdar.config.check import check_value
from sdar.config.compose import compose_config
from sdar.config.paths import check_paths
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
    try:
        node = config[name]
        if OmegaConf.is_config(node) and (missing := sorted(OmegaConf.missing_keys(node))):
            raise UserError(f"{missing[0]} is not set: give it as {missing[0]}=VALUE")
        value = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        raise UserError(f"{name}: a value cannot be resolved: {str(error).splitlines()[0]}") from error
    frame = find("sdar.run.schema.Configuration")
    assert frame is not None
    check_value(value, signature(frame).parameters[name].hint, name)
    check_paths(value, name)
    return value


def build_part(config: Mapping[str, Any] | DictConfig, name: str) -> Any:
    """The object of a group; see :func:`part`."""
    return build(part(config, name), name)
