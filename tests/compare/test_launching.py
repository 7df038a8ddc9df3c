"""Promises of a whole call, with runs that take a moment: launchers, reuse, failures, and being stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdar.compare import app, launcher, launching, terms
from sdar.compare.plan import make_plan
from sdar.compare.request import read_request
from sdar.compare.terms import PANEL, TASKS, Terms
from sdar.errors import UserError
from sdar.run.folder import LOCK_FILE, is_occupied, occupied
from toys import train as fake_train

pytestmark = pytest.mark.e2e  # every test starts processes

SWEEP = ["algorithm=grpo,sdar", "seed=0..1", "logs_dir=logs"]
PAIR = ["algorithm=grpo,sdar", "seed=0", "logs_dir=logs"]


class Fake:
    """The stand-in for ``train.py``: what it was called with, and how it is to behave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command = [sys.executable, fake_train.__file__, str(folder)]
        self.behave()

    def prepare(self, *arguments: str) -> None:
        plan = make_plan(read_request([text for text in arguments if not text.startswith(("hydra", "jobs="))]))
        file = self.folder / "settings.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        known |= {fake_train.key_of(list(job.arguments)): dict(job.config) for job in plan.jobs}
        file.write_text(json.dumps(known))

    def behave(self, **what: str) -> None:
        """``sdar="fail"``: runs of algorithm=sdar fail."""
        (self.folder / "behaviour.json").write_text(json.dumps({f"algorithm={name}": do for name, do in what.items()}))

    def calls(self) -> list[dict[str, Any]]:
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fake").mkdir()
    made = Fake(tmp_path / "fake")
    monkeypatch.setattr(launching, "TRAIN", made.command)
    monkeypatch.setattr(terms, "present_terms", lambda settings: {PANEL: "p" * 64, TASKS: (12, "t" * 64)})
    return made


@pytest.fixture
def compare(fake: Fake, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(*arguments: str) -> tuple[int, str]:
        fake.prepare(*arguments)
        code = app.main(arguments)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out + shown.err

    return call


def test_a_comparison_runs_what_is_missing_and_reuses_the_rest(
    compare: Callable[..., tuple[int, str]], fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, shown = compare(*SWEEP)
    assert code == 0, shown
    assert len(fake.calls()) == 4
    assert shown.count("done after") == 4
    assert "+5.0" in shown
    folder = next(Path("logs/compare").iterdir())
    record = json.loads((folder / "comparison.json").read_text())
    assert record["paired_differences"][0]["differences"] == pytest.approx([0.05, 0.05])
    assert "| grpo" in (folder / "comparison.md").read_text()

    with monkeypatch.context() as patched:
        patched.setattr(launcher, "start", None)  # a second call starts no process
        code, shown = compare(*SWEEP)
    assert code == 0
    assert shown.count("reused") == 4
    assert json.loads((folder / "comparison.json").read_text()) == record

    code, shown = compare("algorithm=grpo,sdar", "seed=0..2", "logs_dir=logs")
    assert (code, shown.count("reused"), len(fake.calls())) == (0, 4, 6)


def test_runs_of_an_earlier_version_are_told_and_made_again(
    compare: Callable[..., tuple[int, str]], fake: Fake
) -> None:
    assert compare(*PAIR)[0] == 0
    for file in Path("logs").glob("**/run.json"):
        record = json.loads(file.read_text())
        del record["identity_version"]
        file.write_text(json.dumps(record | {"config_hash": "of the earlier version"}))
    code, shown = compare(*PAIR)
    assert (code, len(fake.calls())) == (0, 4)
    assert "not reused: 2 runs of an earlier version, whose settings cannot be compared" in shown


@pytest.mark.parametrize("name", ["joblib", "submitit_local"])
def test_other_launchers_give_the_same_runs(compare: Callable[..., tuple[int, str]], fake: Fake, name: str) -> None:
    more = {"joblib": ["jobs=2"], "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]}
    if len(os.sched_getaffinity(0)) < 2 and name == "joblib":
        more["joblib"] = ["hydra/launcher=joblib", "jobs=1"]
    pytest.importorskip({"joblib": "joblib", "submitit_local": "submitit"}[name])
    code, shown = compare(*SWEEP, *more[name])
    assert code == 0, shown
    assert sorted(" ".join(call["overrides"][1:3]) for call in fake.calls()) == [
        f"algorithm={method} seed={seed}" for method in ("grpo", "sdar") for seed in (0, 1)
    ]


def test_a_failed_run_is_named_with_its_log_and_tried_again(
    compare: Callable[..., tuple[int, str]], fake: Fake
) -> None:
    fake.behave(sdar="fail")
    code, shown = compare(*SWEEP)
    assert code == 1
    assert "sdar seed=0: FAILED with exit code 3: error: the weights are gone (see " in shown
    assert "2 of 4 runs are not finished" in shown
    assert "Without these runs, which are not finished: sdar seed=0, sdar seed=1." in shown
    assert "grpo seed=1" in shown
    log = Path(shown.split("the weights are gone (see ")[1].split(")")[0])
    assert "the weights are gone" in log.read_text()

    fake.behave()
    code, shown = compare(*SWEEP)
    assert code == 0
    assert shown.count("reused") == 2
    assert len(fake.calls()) == 6


@pytest.mark.parametrize("damage", ["half a record", "nothing"])
def test_a_run_that_left_no_results_is_no_finished_run(
    compare: Callable[..., tuple[int, str]], fake: Fake, damage: str
) -> None:
    fake.behave(sdar=damage)
    code, shown = compare(*PAIR)
    assert code == 1
    assert "1 of 2 runs are not finished" in shown
    fake.behave()
    code, shown = compare(*PAIR)
    assert code == 0
    assert ("its results cannot be read" in shown) is (damage == "half a record")


def test_runs_on_another_panel_are_refused_when_they_are_reused_and_when_they_are_new(
    compare: Callable[..., tuple[int, str]], fake: Fake
) -> None:
    fake.behave(sdar="other panel")
    for _ in range(2):
        code, shown = compare(*PAIR)
        assert code == 2
        assert "differ in their panel" in shown.splitlines()[-1]
    assert len(fake.calls()) == 2


@pytest.mark.parametrize(
    ("now", "mentioned"),
    [
        ({PANEL: "q" * 64, TASKS: (12, "t" * 64)}, "their panel (content hash): pppppppppppp and qqqqqqqqqqqq"),
        ({PANEL: "p" * 64, TASKS: (13, "u" * 64)}, "their training tasks: 12 (tttttttttttt) and 13 (uuuuuuuuuuuu)"),
    ],
)
def test_a_panel_that_has_changed_since_is_told_before_anything_starts(
    compare: Callable[..., tuple[int, str]], fake: Fake, monkeypatch: pytest.MonkeyPatch, now: Terms, mentioned: str
) -> None:
    assert compare(*PAIR)[0] == 0
    monkeypatch.setattr(terms, "present_terms", lambda settings: now)
    assert compare(*PAIR)[0] == 0  # nothing is to be made
    code, shown = compare("algorithm=grpo,sdar", "seed=0..1", "logs_dir=logs")
    assert (code, len(fake.calls())) == (2, 2)
    assert mentioned in shown.splitlines()[-1]


def test_files_that_lie_elsewhere_keep_nobody_from_comparing(
    compare: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare(*PAIR)[0] == 0

    def lost(settings: Any) -> Terms:
        raise UserError("environment.data_dir=here has no games")

    monkeypatch.setattr(terms, "present_terms", lost)
    code, shown = compare("algorithm=grpo,sdar", "seed=0..1", "logs_dir=logs")
    assert code == 0
    assert "cannot be checked here: environment.data_dir=here has no games" in shown


@pytest.mark.parametrize(
    ("ending", "launched"),
    [(signal.SIGINT, ["hydra/launcher=basic"]), (signal.SIGTERM, ["hydra/launcher=joblib", "jobs=2"])],
)
def test_a_stopped_comparison_keeps_what_is_finished_and_goes_on(
    compare: Callable[..., tuple[int, str]], fake: Fake, ending: signal.Signals, launched: list[str]
) -> None:
    if "jobs=2" in launched:
        pytest.importorskip("joblib")
    fake.prepare(*SWEEP)
    fake.behave(sdar="wait")
    script = (
        # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from sdar.compare import app, launching; launching.cores = lambda: 2; "
        f"launching.TRAIN = {fake.command!r}; sys.exit(app.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *SWEEP, *launched], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    waiting = fake.folder / "waiting0"  # of the first seed: that of the second may be there before
    until = time.monotonic() + 300
    while not waiting.exists() or not waiting.read_text() or not list(Path("logs/grpo").glob("*/results.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.1)
    # meanwhile, the same comparison is refused, and so is another one that needs the running run
    code, shown = compare(*SWEEP)
    assert (code, "is running already" in shown) == (2, True)
    code, shown = compare("algorithm=sdar", "seed=0,5", "logs_dir=logs")
    assert (code, "seed=0 is running now, in logs/sdar" in shown) == (2, True)

    process.send_signal(ending)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + ending
    assert "of 4 runs were finished and are kept. The same command reuses them" in output
    assert not _alive(int(waiting.read_text()))

    fake.behave()
    code, shown = compare(*SWEEP)
    assert code == 0, shown
    assert shown.count("grpo seed=0: reused") == 1
    resumed = [call for call in fake.calls() if any(text.startswith("ckpt_path=") for text in call["overrides"])]
    assert len(resumed) >= 1


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process}/stat").read_text().split(")")[1][:3]


def test_a_checkpoint_that_is_refused_is_no_reason_to_give_up(
    compare: Callable[..., tuple[int, str]], fake: Fake
) -> None:
    fake.behave(sdar="nothing")
    compare(*PAIR)
    for run in Path("logs/sdar").iterdir():
        (run / "checkpoints").mkdir()
        zipfile.ZipFile(run / "checkpoints" / "last.ckpt", "w").close()
    fake.behave(sdar="refuse")
    code, _ = compare(*PAIR)
    assert code == 0
    assert len(fake.calls()) == 2 + 2


def test_runs_side_by_side_share_the_cores(
    compare: Callable[..., tuple[int, str]], fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert compare(*PAIR, "jobs=2")[0] == 0
    assert {call["threads"] for call in fake.calls()} == {"2"}
    assert all("threads=2" in call["overrides"] for call in fake.calls())


@pytest.mark.parametrize(
    ("given", "threads"), [("1", 1), ("3", 3), ("64", 4), ("3,1", 3), ("", 4), ("many", 4), ("0", 4)]
)
def test_no_run_beside_others_has_more_threads_than_the_environment_says(
    given: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert launching.choose_launcher("joblib", [], 2, None).threads == threads
    assert launching.choose_launcher("joblib", [], 2, 2).threads == 2  # as configured
    assert launching.choose_launcher("basic", [], None, None).threads is None  # each asks its environment


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_number_of_runs_is_taken_with_any_prefix(plus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "cores", lambda: 8)
    chosen = launching.choose_launcher("joblib", [f"{plus}hydra.launcher.n_jobs=2"], None, None)
    assert chosen.at_a_time == 2
    assert [text for text in chosen.overrides if "n_jobs=" in text] == ["hydra.launcher.n_jobs=2"]


@pytest.mark.parametrize(
    ("arguments", "mentioned"),
    [
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "n_jobs must be >= 1"),
        (["jobs=3"], "jobs x threads must be <= 2"),
        (["jobs=2", "threads=2"], "<= 2, the number of cores, got jobs=2 and threads=2"),
        (["jobs=2", "hydra/launcher=basic"], "one at a time"),
        (["hydra/launcher=nonsense"], "hydra/launcher must be one of basic, "),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "jobs=2"], "set jobs alone"),
        (["hydra/launcher=joblib", "++hydra.launcher.n_jobs=2", "jobs=2"], "set jobs alone"),
        (["hydra/launcher=joblib", "hydra.launcher.nonsense=2"], "do not fit hydra/launcher=joblib"),
        (["hydra/launcher=submitit_local", "jobs=2"], "settings of its own"),
        (
            ["jobs=2", "rollout.backend=vllm", "rollout.vllm.url=http://127.0.0.1:8000"],
            "a server plays one run at a time; set jobs=1",
        ),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_launcher_is_told_in_one_sentence(
    arguments: list[str],
    mentioned: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launching, "cores", lambda: 2)
    assert app.main([*SWEEP, *arguments]) == 2
    shown = capsys.readouterr().err
    assert mentioned in shown
    assert len(shown.strip().splitlines()) == 1
    assert not (tmp_path / "logs").exists()


def test_a_launcher_that_is_not_installed_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launcher.ConfigStore, "list", lambda self, path: ["basic.yaml"])
    monkeypatch.setattr(launching, "cores", lambda: 2)
    for name, extra in (("joblib", "sdar[compare]"), ("submitit_slurm", "sdar[slurm]")):
        assert app.main([*SWEEP, f"hydra/launcher={name}"]) == 2
        assert extra in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


def test_a_launcher_that_gives_up_is_told_with_its_log(
    compare: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "check_launcher", lambda name, overrides: None)
    code, shown = compare(*PAIR, "hydra/launcher=nonsense")
    assert code == 2
    assert "hydra/launcher=nonsense failed" in shown
    assert "launcher.log" in shown


def test_help_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--help"]) == 0
    assert "seed=0..4" in capsys.readouterr().out


def test_a_run_of_another_user_is_seen_to_be_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    with occupied(tmp_path), monkeypatch.context() as patched:
        patched.setattr("filelock.FileLock.acquire", refused)
        assert is_occupied(tmp_path)
    (tmp_path / LOCK_FILE).touch()
    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    assert not is_occupied(tmp_path)


def test_a_folder_is_occupied_as_long_as_its_process_lives(tmp_path: Path) -> None:
    with occupied(tmp_path) as first, occupied(tmp_path) as second:
        assert (first, second) == (True, False)
    with occupied(tmp_path) as again:
        assert again
    assert list(tmp_path.iterdir()) == []
