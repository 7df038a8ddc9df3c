"""``logger=...``: one, several, and those whose package is not installed."""

from __future__ import annotations

import csv
import logging
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger

from sdar.callbacks.loggers.csv import CSV
from sdar.callbacks.loggers.harmless import Harmless, made_harmless
from sdar.callbacks.loggers.trackio import Trackio
from sdar.callbacks.tensorboard import Curves
from sdar.config.sources import config_folder, groups
from sdar.errors import UserError
from sdar.learning.logs import log_metrics
from sdar.run.assembly import build_trainer
from sdar.run.folder import write_run_folder
from sdar.run.validate import compose
from toys.runs import settings_of

FOREIGN = ["wandb", "mlflow", "trackio"]


def loggers(tmp_path: Path, *overrides: str) -> list[Any]:
    settings = compose([f"run_dir={tmp_path}", *overrides])
    return build_trainer({**settings.config, "callbacks": {}}, []).loggers


def test_tensorboard_is_the_default_and_several_are_a_list(tmp_path: Path) -> None:
    assert [type(one) for one in loggers(tmp_path)] == [Curves]
    assert [type(one) for one in loggers(tmp_path, "logger=csv")] == [CSV]
    both = loggers(tmp_path, "logger=[tensorboard,csv]", "logger.csv.version=table")
    assert [type(one) for one in both] == [Curves, CSV]
    assert Path(both[0].log_dir) == tmp_path / "tensorboard"
    assert Path(both[1].log_dir) == tmp_path / "table"
    assert loggers(tmp_path, "logger=none") == []


@pytest.mark.parametrize(("given", "named"), [("[tensorboard,cvs]", "csv"), ("[]", "tensorboard"), ("[1]", "mlflow")])
def test_a_list_with_another_word_is_refused(given: str, named: str) -> None:
    with pytest.raises(UserError, match=f"logger=.*there is no such logger.*{named}"):
        compose([f"logger={given}"])


@pytest.mark.parametrize("name", FOREIGN)
def test_a_package_that_is_missing_is_named_with_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    expected = rf"^logger={name} needs the package {name}, which is not installed: pip install 'sdar\[{name}\]'$"
    with pytest.raises(UserError, match=expected):
        loggers(tmp_path, f"logger=[tensorboard,{name}]")


def test_every_file_of_the_group_composes() -> None:
    for name in groups(config_folder())["logger"]:
        assert set(compose([f"logger={name}"]).config["logger"]) == ({name} - {"none"})


def test_csv_has_a_column_per_tag_and_the_settings(tmp_path: Path) -> None:
    logger = CSV(str(tmp_path), version="csv")
    logger.log_hyperparams({"gate.beta": 5.0})
    logger.log_metrics({"val/success_rate": 0.25}, 0)
    logger.log_metrics({"loss/total": 1.5}, 0)
    logger.save()  # as after a crash, without finalize
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"step": "0", "val/success_rate": "0.25", "loss/total": ""},
        {"step": "0", "val/success_rate": "", "loss/total": "1.5"},
    ]
    assert yaml.safe_load((tmp_path / "csv" / "hparams.yaml").read_text()) == {"gate.beta": 5.0}


def test_trackio_gets_name_settings_and_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    run = SimpleNamespace(log=lambda metrics, step: said.append((step, metrics)), finish=lambda: said.append("end"))
    monkeypatch.setitem(sys.modules, "trackio", _module(lambda **given: said.append(given) or run))
    write_run_folder(tmp_path, settings_of(), started=datetime(2026, 1, 1), command=[], resumed_from=None)
    logger = Trackio(str(tmp_path))
    logger.log_hyperparams({"seed": 1})
    logger.log_metrics({"loss/total": 1.5}, 4)
    logger.finalize("success")
    began = {"project": "sdar", "name": "sdar - alfworld - seed 1", "config": {"seed": 1}}
    assert said == [began, (4, {"loss/total": 1.5}), "end"]


def test_a_service_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no connection")

    monkeypatch.setitem(sys.modules, "trackio", _module(refuse))
    logger = Trackio("nowhere", name="mine")
    with caplog.at_level(logging.WARNING, "sdar"):
        for step in range(3):
            logger.log_metrics({"loss/total": 1.5}, step)
        logger.finalize("success")
    assert logger.version == "mine"
    assert caplog.text.count("the log of Trackio cannot be written (RuntimeError: no connection)") == 1


class Unreachable(CSVLogger):
    """A logger of somebody else's, whose server is gone."""

    def log_metrics(self, *_: Any, **__: Any) -> None:
        raise TimeoutError("no answer") from None

    def save(self) -> None:
        raise ValueError("not open")


def test_a_logger_of_somebody_elses_that_fails_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = made_harmless(Unreachable(str(tmp_path)))
    assert isinstance(logger, Unreachable)
    assert made_harmless(logger) is logger
    with caplog.at_level(logging.WARNING, "sdar"):
        for step in range(3):
            log_metrics([logger], {"loss/total": 1.5}, step)
            logger.save()
        logger.finalize("success")
    assert caplog.text.count("the log of Unreachable cannot be written") == 1
    assert type(build_trainer(_with_csv(tmp_path), []).loggers[0]).__name__ == "CSVLogger"
    assert isinstance(build_trainer(_with_csv(tmp_path), []).loggers[0], Harmless)


def _with_csv(tmp_path: Path) -> dict[str, Any]:
    settings = compose([f"run_dir={tmp_path}"]).config
    node = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(tmp_path)}
    return {**settings, "callbacks": {}, "logger": {"mine": node}}


def _module(init: Any) -> ModuleType:
    module = ModuleType("trackio")
    module.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    module.init = init  # type: ignore[attr-defined]
    return module
