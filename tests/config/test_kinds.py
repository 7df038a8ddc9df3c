"""Promises of what a configuration builds: objects defined in allowed packages, each of the class its place takes."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import pytest

import sdar
from sdar.config.build import build
from sdar.config.check import check_value
from sdar.config.kinds import KINDS, check_kind, takes
from sdar.config.plugins import OWN_PACKAGES
from sdar.config.signatures import find, signature
from sdar.config.targets import defined
from sdar.errors import UserError


def parameters(target: str) -> dict[str, Any]:
    """What stands at each parameter of a class."""
    source = find(target)
    assert source is not None
    return {name: parameter.hint for name, parameter in signature(source).parameters.items()}


FRAME = parameters("sdar.run.schema.Configuration")
PLACES = {
    **{name: hint for name, hint in FRAME.items() if takes(hint)},
    **{f"{group}.mine": FRAME[group].__args__[1] for group in ("callbacks", "logger")},
    **{f"trainer.{name}": hint for name, hint in parameters("lightning.Trainer").items() if takes(hint)},
    "teacher.other": parameters("sdar.teacher.context.ContextTeacher")["other"],
    "anywhere": Any,
}


def accepted(target: Any) -> list[str]:
    """The places that take what a name names."""
    try:
        return _places(defined(target, "here").dotted)
    except UserError:
        return []


@cache
def _places(target: str) -> list[str]:
    return [place for place, hint in PLACES.items() if _is_taken(target, hint)]


def _is_taken(target: str, hint: Any) -> bool:
    try:
        check_kind({"_target_": target}, hint, "here")
    except UserError:
        return False
    return True


def reachable() -> Iterator[tuple[ModuleType, str, Any]]:
    """Every name in every module of the allowed packages that is imported with ours."""
    for module in pkgutil.walk_packages(sdar.__path__, "sdar."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name, module in sorted(sys.modules.items()):
        if any(f"{name}.".startswith(f"{package}.") for package in OWN_PACKAGES) and isinstance(module, ModuleType):
            yield from ((module, attribute, value) for attribute, value in list(vars(module).items()))


@pytest.mark.e2e  # imports everything
def test_no_name_in_any_module_reaches_what_is_not_of_a_known_kind() -> None:
    kinds = [getattr(importlib.import_module(kind.rpartition(".")[0]), kind.rpartition(".")[2]) for kind in KINDS]
    fitting, targets = set(), 0
    for module, attribute, value in reachable():
        target = f"{module.__name__}.{attribute}"
        if inspect.ismodule(value) and value.__name__ != target:
            # one name stands for all: a walk ends at the module
            within = next((name for name, found in vars(value).items() if callable(found)), "system")
            assert accepted(f"{target}.{within}") == [], target
        taken = accepted(target)
        targets += 1
        if not taken:
            continue
        assert inspect.isclass(value) or value.__module__.startswith("sdar."), target
        fitting.add(target)
        if inspect.isclass(value) and "anywhere" in taken:
            assert issubclass(value, tuple(kinds)), target
    assert targets > 5000
    assert {"sdar.objective.gate.GapGate", "lightning.Trainer"} <= fitting


HARMFUL = [
    "sdar.run.session.os.system",
    "sdar.run.folder.subprocess.run",
    "sdar.config.targets.importlib.import_module",
    "sdar.run.folder.yaml.unsafe_load",
    "sdar.policy.checkpoint.torch.load",
    "sdar.commands.train.main",
    "sdar.commands.export.export",
    "sdar.run.folder.write_record",
    "sdar.run.session.Session",
    "sdar.run.session.Session.run",
    "sdar.config.build.build",
    "sdar.compare.launching.launcher.start",
    "sdar.compare.job.run_job",
    "sdar.errors.run_command",
    "sdar.objective.gate.GapGate.value",
    "sdar.objective.gate.GapGate.__init__",
    "sdar.objective.gate.GapGate.__class__",
    "sdar.objective.gate.GapGate.value.__globals__",
    "sdar.objective.gate.__builtins__.eval",
    "sdar./etc/passwd.x",
    "sdar..os.system",
    "sdar.",
    "lightning.fabric.utilities.cloud_io._load",
    "lightning.pytorch.core.saving.save_hparams_to_yaml",
    "lightning.fabric.strategies.launchers.subprocess_script._SubprocessScriptLauncher",
    "lightning.pytorch.LightningModule.load_from_checkpoint",
    "lightning.pytorch.cli.LightningCLI",
    "lightning.pytorch.utilities.consolidate_checkpoint.load",
    "torch.optim.lr_scheduler.LambdaLR",
    "torch.optim.swa_utils.AveragedModel",
    "torch.optim.SGD",
    "sdar." + "x" * 100_000,
    "x" * 100_000,
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "sdar",
    "",
    None,
    3,
    ["os.system"],
]


@pytest.mark.parametrize("target", HARMFUL, ids=lambda target: str(target)[:60])
def test_what_does_something_is_taken_nowhere(target: Any) -> None:
    assert accepted(target) == []
    with pytest.raises(UserError, match="_target_=") as caught:
        build({"_target_": target, "args": "x"}, "here")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("target", "places"),
    [
        ("sdar.objective.gate.GapGate", {"gate", "anywhere"}),
        ("sdar.policy.language_model.tiny_model", {"model", "teacher.other", "anywhere"}),
        ("sdar.learning.strategies.fully_sharded", {"trainer.strategy", "anywhere"}),
        ("lightning.pytorch.callbacks.EarlyStopping", {"callbacks.mine", "trainer.callbacks", "anywhere"}),
        ("lightning.pytorch.loggers.CSVLogger", {"logger.mine", "trainer.logger", "anywhere"}),
        ("lightning.pytorch.profilers.SimpleProfiler", {"trainer.profiler", "anywhere"}),
        ("lightning.Trainer", {"trainer", "anywhere"}),
        ("sdar.learning.optimizer.OptimizerSettings", {"optimizer"}),
    ],
)
def test_each_place_takes_its_kind_alone(target: str, places: set[str]) -> None:
    assert set(accepted(target)) == places


GATE = {"_target_": "sdar.objective.gate.GapGate", "beta": 5.0, "threshold": 0.5}


@pytest.mark.parametrize(
    ("place", "node", "told"),
    [
        ("gate", {**GATE, "beta": GATE}, "gate.beta must be a number >= 0, got {_target_: "),
        ("gate", {**GATE, "_partial_": True}, "gate._partial_=true: there is no such setting"),
        ("callbacks", {"mine": GATE}, "callbacks.mine._target_=sdar.objective.gate.GapGate: it must be lightning"),
        ("logger", {"mine": GATE}, "logger.mine._target_=sdar.objective.gate.GapGate: it must be lightning"),
        (
            "callbacks",
            {"mine": {"_target_": "lightning.pytorch.callbacks.LambdaCallback", "on_fit_start": GATE}},
            "callbacks.mine.on_fit_start must be ",
        ),
        (
            "logger",
            {
                "mine": {
                    "_target_": "lightning.pytorch.loggers.MLFlowLogger",
                    "tags": {"a": [{"_target_": "sdar.commands.train.main"}]},
                }
            },
            "logger.mine.tags.a.0._target_=sdar.commands.train.main: it is nothing that a configuration builds",
        ),
    ],
)
def test_what_stands_inside_a_node_is_of_the_kind_of_its_place(place: str, node: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        check_value(node, FRAME[place], place)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ({"_target_": "sdar.objective.gate.Gate"}, "the class is abstract"),
        ({**GATE, "beta": {"_target_": "sdar.run.session.Session"}}, "gate.beta must be a number >= 0"),
    ],
)
def test_what_was_never_checked_builds_nothing_else_either(node: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        build(node, "gate")
