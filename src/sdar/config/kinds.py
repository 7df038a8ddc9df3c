"""Which objects a place of the configuration takes: those of the class that its annotation names, or made from it."""

from __future__ import annotations

import ast
import typing
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Self

from sdar.config.plugins import is_own
from sdar.config.signatures import Kind, Source, find, returned_kind
from sdar.config.targets import defined, locate
from sdar.config.words import describe, shown
from sdar.errors import UserError

_TRAINER = "lightning.pytorch.trainer.trainer.Trainer"

KINDS = (
    "sdar.environments.base.Environment",
    "sdar.environments.search_qa.retriever.Retriever",
    "sdar.learning.method.Method",
    "sdar.learning.supervision.Supervision",
    "sdar.objective.divergence.Divergence",
    "sdar.objective.estimator.AdvantageEstimator",
    "sdar.objective.gate.Gate",
    "sdar.objective.schedule.Schedule",
    "sdar.objective.schedule.Schedules",
    "sdar.objective.shaping.Shaping",
    "sdar.policy.language_model.LanguageModel",
    "sdar.skills.retrieval.Retrieval",
    "sdar.teacher.base.Teacher",
    "sdar.teacher.hindsight.Analyzer",
    "sdar.teacher.parts.ContextPart",
    "lightning.fabric.plugins.environments.cluster_environment.ClusterEnvironment",
    "lightning.fabric.plugins.io.checkpoint_io.CheckpointIO",
    "lightning.pytorch.accelerators.accelerator.Accelerator",
    "lightning.pytorch.callbacks.callback.Callback",
    "lightning.pytorch.loggers.logger.Logger",
    "lightning.pytorch.plugins.layer_sync.LayerSync",
    "lightning.pytorch.plugins.precision.precision.Precision",
    "lightning.pytorch.profilers.profiler.Profiler",
    "lightning.pytorch.strategies.strategy.Strategy",
    _TRAINER,
)
"""What may be built where no annotation says more."""


def takes(hint: Any) -> tuple[str, ...]:
    """The classes of which an annotation takes objects: none for plain values, KINDS where it says nothing."""
    if typing.get_origin(hint) is Annotated:
        return takes(hint.__origin__)
    if typing.get_origin(hint) in (typing.Union, UnionType):
        return tuple(dict.fromkeys(kind for option in typing.get_args(hint) for kind in takes(option)))
    if isinstance(hint, Kind):
        return (hint.dotted,)
    unknown = hint in (Any, object) or isinstance(hint, str | typing.ForwardRef | typing.TypeVar)
    return KINDS if unknown else ()


def check_kind(node: Mapping[str, Any], hint: Any, path: str) -> Source:
    """What a node builds, if its place takes it.

    Functions of ours, and of the user's packages, may stand for the class that their annotation says they return.
    Functions of other packages are never called.

    Raises:
        UserError: nothing that may be built has the name, or it is of another class.
    """
    source = defined(node["_target_"], path)
    kinds = takes(hint)
    if not kinds:
        raise UserError(f"{path} must be {describe(hint)}, got {shown(node)}")
    if _fits(_made(source), kinds) or (not is_own(source.dotted) and _fits_imported(source, kinds, path)):
        return source
    if kinds is KINDS:
        raise UserError(f"{path}._target_={node['_target_']}: it is nothing that a configuration builds")
    names = " or ".join(kinds)
    others = "" if kinds == (_TRAINER,) else ", or a class made from it"
    others += "" if source.is_class else ", or a function whose annotation says that it returns one"
    raise UserError(f"{path}._target_={node['_target_']}: it must be {names}{others}")


def _made(source: Source) -> Source | None:
    """The class of what a class or a function makes; None where nothing says so."""
    if isinstance(source.node, ast.ClassDef):
        return source
    if source.dotted.startswith(("lightning.", "torch.")):
        return None
    if "." in source.qualname and not {"classmethod", "staticmethod"} & source.decorators:
        return None
    returned = returned_kind(source)
    owner = source.dotted.rpartition(".")[0]
    dotted = owner if returned is Self else returned.dotted if isinstance(returned, Kind) else None
    # a trainer is made by its class alone, which says what it takes
    return None if dotted in (None, _TRAINER) else find(dotted)


def _fits(made: Source | None, kinds: tuple[str, ...]) -> bool:
    return made is not None and any(made.dotted == kind if kind == _TRAINER else made.is_a(kind) for kind in kinds)


def _fits_imported(source: Source, kinds: tuple[str, ...], path: str) -> bool:
    """The same by import, for classes of the user's whose source does not show what they are made from."""
    made: Any = locate(source, path)
    if not source.is_class:
        made = typing.get_type_hints(made).get("return")
    bases = [locate(base, path) for kind in kinds if kind != _TRAINER and (base := find(kind)) is not None]
    return isinstance(made, type) and issubclass(made, tuple(typing.cast("list[type]", bases)))
