"""Promises of plug-ins: own packages are used by the user's word alone, and every other outcome is one sentence."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from sdar.config.build import build, build_settings
from sdar.config.check import check_value
from sdar.config.command_line import options, parse_command_line
from sdar.config.plugins import allowing, given
from sdar.config.signatures import find, signature
from sdar.errors import UserError
from sdar.learning.optimizer import OptimizerSettings

MODULES = {
    "__init__.py": "from .gates import Doubled\nfrom .star import *\nfrom os import system\nimport os\n",
    "gates.py": (
        "from sdar.objective.gate import GapGate, Gate, NoGate\n"
        "from sdar.config.fields import NotNegative, settings\n"
        "@settings(frozen=True)\n"
        "class Doubled(GapGate):\n"
        "    factor: NotNegative = 2.0\n"
        "    @classmethod\n"
        "    def open(cls) -> Gate:\n"
        "        return NoGate()\n"
        "class Heir(Doubled):\n    pass\n"
        "def open_gate() -> Gate:\n"
        "    return NoGate()\n"
        "def unsaid():\n"
        "    return NoGate()\n"
    ),
    "parts.py": (
        "import lightning as L\n"
        "from lightning.pytorch import loggers\n"
        "from torch.optim import SGD\n"
        "from sdar.config.fields import Fraction, settings\n"
        "from sdar.environments.base import Environment\n"
        "from sdar.learning.optimizer import OptimizerSettings\n"
        "from sdar.policy.language_model import LanguageModel\n"
        "class Mine(L.Callback):\n    pass\n"
        "class Log(loggers.CSVLogger):\n    pass\n"
        "class Game(Environment):\n    pass\n"
        "def load(name: str = '') -> LanguageModel:\n    raise NotImplementedError\n"
        "@settings(frozen=True)\n"
        "class Descent(OptimizerSettings):\n"
        "    momentum: Fraction = 0.9\n"
        "    def create(self, model):\n"
        "        return SGD(model.parameters(), lr=self.learning_rate, momentum=self.momentum)\n"
    ),
    "star.py": "from sdar.objective.gate import NoGate\nclass Starred(NoGate):\n    pass\n",
    "hidden.py": (
        "import sdar.objective.gate as gates\n"
        "Base = [gates.NoGate][0]\n"
        "class Hidden(Base):\n    pass\n"
        "class Stray:\n    pass\n"
    ),
    "broken.py": "class Broken(:\n",
    "needy.py": "import no_such_package_at_all\nExported = no_such_package_at_all.Gate\n",
    "leaving.py": (
        "import sys\n"
        "from sdar.objective.gate import NoGate\n"
        "class Left(NoGate):\n"
        "    def __init__(self):\n"
        "        sys.exit(0)\n"
    ),
    "left.py": "import sys\nsys.exit(0)\nExported = None\n",
}
numbers = itertools.count()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package of one's own that Python finds; a new one for each test, as sources are read once."""
    name = f"plugged_in_{next(numbers)}"
    (tmp_path / name).mkdir()
    for file, text in MODULES.items():
        (tmp_path / name / file).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def check(group: str, value: Any) -> None:
    """Check a group of the configuration."""
    frame = find("sdar.run.schema.Configuration")
    assert frame is not None
    check_value(value, signature(frame).parameters[group].hint, group)


def gate(target: str, **settings: Any) -> Any:
    """A checked and built gate."""
    node = {"_target_": target, **settings}
    check("gate", node)
    return build(node, "gate")


def test_without_a_word_it_is_refused_by_a_sentence_with_the_word(package: str) -> None:
    with pytest.raises(UserError, match=rf"gate\._target_={package}\.Doubled: .* add --allow {package}$"):
        gate(f"{package}.Doubled", factor=1.0)


def test_the_word_holds_for_its_block_and_for_the_processes_that_it_starts(package: str) -> None:
    with allowing([package]):
        assert gate(f"{package}.Doubled", beta=1.0, factor=3.0, threshold=0.5).factor == 3
        assert options(None, "train") == [f"--allow={package}"]
        with allowing([f"{package}.gates"]):
            assert given() == (package, f"{package}.gates")
    assert given() == ()
    assert options(None, "train") == []
    with pytest.raises(UserError, match="only objects of"):
        gate(f"{package}.Doubled")


def test_an_installed_plug_in_needs_no_word(package: str, tmp_path: Path) -> None:
    info = tmp_path / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[sdar.plugins]\nmine = {package}\n")
    assert type(gate(f"{package}.Starred")).__name__ == "Starred"


@pytest.mark.parametrize("name", ["Starred", "star.Starred", "hidden.Hidden", "gates.open_gate", "Doubled.open"])
def test_what_is_of_the_kind_is_built_however_it_is_written(package: str, name: str) -> None:
    with allowing([package]):
        assert gate(f"{package}.{name}").name == "none"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("system", "it is defined as os.system|nothing is defined by that name"),
        ("os.system", "nothing is defined by that name"),
        ("Nothing", "nothing is defined by that name"),
        ("nowhere.Nothing", "nothing is defined by that name"),
        ("gates.Heir.open", "nothing is defined by that name"),  # Doubled's, which would not make an Heir
        ("hidden.Stray", "it must be sdar.objective.gate.Gate, or a class made from it$"),
        ("gates.unsaid", "or a function whose annotation says that it returns one$"),
        ("broken.Broken", "its source cannot be read: invalid syntax"),
        ("needy.Exported", "cannot be imported: ModuleNotFoundError: .*no_such_package_at_all"),
        ("left.Exported", "cannot be imported: SystemExit: 0"),
    ],
)
def test_everything_else_is_told_in_one_sentence(package: str, name: str, told: str) -> None:
    with allowing([package]), pytest.raises(UserError, match=told) as caught:
        gate(f"{package}.{name}")
    assert str(caught.value).startswith(f"gate._target_={package}.{name}: ")
    assert "\n" not in str(caught.value)


def test_a_constructor_that_exits_ends_no_process(package: str) -> None:
    with (
        allowing([package]),
        pytest.raises(UserError, match=r"^gate cannot be built: its constructor calls sys\.exit$"),
    ):
        gate(f"{package}.leaving.Left")


@pytest.mark.parametrize(
    ("group", "name"),
    [("environment", "Game"), ("model", "load"), ("callbacks", "Mine"), ("logger", "Log"), ("optimizer", "Descent")],
)
def test_every_place_takes_one_of_its_kind(package: str, group: str, name: str) -> None:
    several = group in ("callbacks", "logger")
    for other in ("Game", "load", "Mine", "Log", "Descent"):
        node = {"_target_": f"{package}.parts.{other}"} | ({"save_dir": "."} if other == "Log" else {})
        with allowing([package]):
            if other == name:
                check(group, {"mine": node} if several else node)
            else:
                with pytest.raises(UserError, match=f"{other}: it must be "):
                    check(group, {"mine": node} if several else node)


def test_an_optimizer_of_ones_own_has_the_settings_of_ours_and_more(package: str) -> None:
    node = {"_target_": f"{package}.parts.Descent", "learning_rate": 0.5, "momentum": 0.25}
    with allowing([package]):
        optimizer = build_settings(OptimizerSettings, node, "optimizer").build(torch.nn.Linear(2, 2))
        with pytest.raises(UserError, match=r"optimizer\.momentum must be a number >= 0 and <= 1, got 2"):
            check("optimizer", node | {"momentum": 2})
    assert optimizer["optimizer"].defaults["momentum"] == 0.25


def test_settings_of_a_plug_in_are_checked_like_ours(package: str) -> None:
    with allowing([package]):
        with pytest.raises(UserError, match=r"gate\.factor must be a number >= 0, got -1"):
            gate(f"{package}.Doubled", factor=-1)
        with pytest.raises(UserError, match=r"gate\.facter=1: .* did you mean gate\.factor"):
            gate(f"{package}.Doubled", facter=1)


@pytest.mark.parametrize("word", ["no_such_package_at_all", "../x", "", "a b", "mypkg.*"])
def test_a_word_that_names_no_package_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="--allow"), allowing([word]):
        raise AssertionError


def test_the_option_may_be_repeated() -> None:
    assert parse_command_line(["--allow", "one", "seed=1", "--allow=two"]).allow == ("one", "two")
