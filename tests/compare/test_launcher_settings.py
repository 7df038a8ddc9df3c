"""The settings of a launcher are values: Hydra would build, and so call, whatever else they describe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdar.compare import launcher
from sdar.compare.job import PLAN_FILE, STATE_FOLDER
from sdar.compare.launcher import check_launcher
from sdar.compare.launching import choose_launcher
from sdar.errors import UserError
from sdar.run.folder import write_record

CALL = "{_target_: os.system, command: 'touch X'}"
OBJECT = "must be a plain value, and describe no object"
COMPUTED = "must be a value, ${oc.env:NAME} or ${another.setting}"


@pytest.mark.parametrize("name", ["basic", "joblib", "submitit_slurm"])
@pytest.mark.parametrize("override", [f"+hydra.launcher.x={CALL}", "+hydra.launcher._args_=[1]"])
def test_settings_that_a_launcher_does_not_have_are_refused(name: str, override: str) -> None:
    with pytest.raises(UserError, match="there is no such setting"):
        choose_launcher(name, [override], None, 1)


@pytest.mark.parametrize(
    ("name", "override", "said"),
    [
        ("joblib", f"hydra.launcher.backend={CALL}", ""),
        ("joblib", f"hydra.launcher.pre_dispatch=[[{CALL}]]", ""),
        ("joblib", "+hydra.launcher.backend._target_=os.system", ""),
        ("joblib", "hydra.launcher._target_=os.system", "cannot be set"),
        (
            "joblib",
            "hydra.launcher._target_=hydra._internal.core_plugins.basic_launcher.BasicLauncher",
            "cannot be set",
        ),
        ("joblib", "hydra.launcher.backend=${hydra.sweeper}", ""),
        ("joblib", "hydra.launcher.timeout=${oc.decode:a}", COMPUTED),
        ("submitit_slurm", "+hydra.launcher.additional_parameters.x='${oc.decode:${oc.env:HOME}}'", COMPUTED),
        ("submitit_slurm", "+hydra.launcher.additional_parameters.x='${oc.decode:\"{_target_: a}\"}'", COMPUTED),
        ("joblib", "hydra.launcher.backend='${oc.decode:\"{_target_: os.system}\"}'", COMPUTED),
        ("joblib", "hydra.launcher.backend=${oc.decode:${oc.env:HOME}}", ""),
        ("joblib", "hydra.launcher.backend=${oc.create:{_target_: os.system}}", ""),
        ("joblib", "hydra.launcher.backend=" + "[" * 2000, "cannot be read"),
        ("submitit_slurm", f"+hydra.launcher.additional_parameters.x={CALL}", OBJECT),
        ("submitit_slurm", "+hydra.launcher.additional_parameters.x._partial_=true", OBJECT),
        ("submitit_slurm", "+hydra.launcher.additional_parameters.x=[{a: {_args_: [1]}}]", OBJECT),
        ("submitit_slurm", "+hydra.launcher.additional_parameters.x=${hydra.sweeper}", OBJECT),
        ("submitit_slurm", f"hydra.launcher.setup=[{CALL}]", ""),
    ],
)
def test_settings_that_describe_an_object_are_refused(name: str, override: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        check_launcher(name, [override])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_are_taken() -> None:
    check_launcher("joblib", ["hydra.launcher.n_jobs=2", "hydra.launcher.temp_folder=${oc.env:HOME,a}/tmp"])
    check_launcher(
        "submitit_slurm",
        [
            "hydra.launcher.partition=p",
            "hydra.launcher.setup=['module load cuda: 12']",
            "+hydra.launcher.additional_parameters.nice=1",
        ],
    )


@pytest.mark.e2e
def test_a_folder_with_any_name_is_found_by_the_launcher(tmp_path: Path) -> None:
    for name in ("back\\slash", "it's", 'a "b"', "a,b=c $x {y}"):
        folder = tmp_path / name
        job = {"command": ["true"], "arguments": [], "checkpoint": None, "run_dir": str(folder / "run"), "threads": 1}
        write_record(folder / PLAN_FILE, {"jobs": [job]})
        assert launcher.start(folder, [0], "basic", []).wait(300) == 0, (folder / launcher.LOG_FILE).read_text()
        assert json.loads((folder / STATE_FOLDER / "0.json").read_text())["code"] == 0
