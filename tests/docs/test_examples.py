"""The examples: their packages are installed outside the clone and train, their notebook and their script run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from sdar import processes
from sdar.compare.request import read_request
from sdar.config.compose import compose_config
from sdar.config.plugins import allowing
from sdar.environments import check_env
from sdar.episode import EndReason, Episode, Observation, Task, Turn
from sdar.objective.advantage import group_advantages
from sdar.run.rules import processes as parallel
from sdar.run.validate import compose, validate
from toys.installed import install, run

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "quickstart.ipynb"
SMALL = (
    "trainer.max_epochs=1",
    "rollout.tasks_per_iteration=2",
    "rollout.group_size=2",
    "rollout.sampling.max_response_tokens=24",
    "evaluation.panel_size=2",
    "evaluation.baselines=false",
)


def load(file: Path) -> ModuleType:
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(package: str) -> list[str]:
    """The commands of its page that begin with ``sdar``, each in one line."""
    page = (EXAMPLES / package / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^    (sdar .*)$", re.sub(r"\s*\\\n\s+", " ", page), re.MULTILINE)


# The environment.


def test_the_environment_has_at_most_40_lines_and_keeps_to_the_protocol() -> None:
    file = EXAMPLES / "own_environment" / "word_guess.py"
    assert len([line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]) <= 40
    game = load(file)
    assert check_env(game.WordEnvironment()).experts > 0
    assert all(len(word) == 4 == len(set(word)) for word in game.WORDS)


def test_a_guess_is_answered_letter_by_letter() -> None:
    environment = load(EXAMPLES / "own_environment" / "word_guess.py").WordEnvironment()
    (task,) = [task for task in environment.tasks("train") if task.payload.answer == "lamp"]
    pool = environment.open_pool()
    pool.reset([task])
    assert pool.step({0: "lake"})[0].observation.text == "lake: l in place, a in place, k absent, e absent"
    assert pool.step({0: "milk"})[0].observation.text == "milk: m elsewhere, i absent, l elsewhere, k absent"
    assert pool.step({0: "lama"})[0].observation.refused
    assert pool.step({0: "lamp"})[0].end is EndReason.SUCCESS


# The advantage.


def attempt(turns: int, reward: float, task: str = "a", end: EndReason = EndReason.TURN_LIMIT) -> Episode:
    observation = Observation("", None, "")
    made = [Turn([], [], "", "", True, observation) for _ in range(turns)]
    made[-1].reward = reward
    return Episode(Task(task, "type", "do it", "train", "hash"), 0, made, end, success=reward > 0)


def test_the_advantage_prefers_short_solutions() -> None:
    swift = load(EXAMPLES / "own_method" / "swift.py").SwiftAdvantage
    lost = attempt(4, 0.0, task="b", end=EndReason.ERROR_TOOL)
    episodes = [attempt(1, 10.0), attempt(2, 10.0), attempt(4, 0.0), lost, attempt(3, 10.0, task="b")]
    # 10 / 2, 10 / 4 and 0: mean 2.5, standard deviation 2.5.
    assert swift(discount=0.5).turns(episodes) == [[1.0], [0.0] * 2, [-1.0] * 4, [0.0] * 4, [0.0] * 3]
    episodes[1].turns[0].valid = False
    plain = group_advantages(episodes, invalid_penalty=0.1)
    assert [pytest.approx(values) for values in plain] == swift(discount=1.0).turns(episodes)


# Both, as packages.


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with copies of both packages, and ``site``: sdar, and what pip makes of them."""
    folder = tmp_path_factory.mktemp("examples")
    install(folder / "site")
    packages = [folder / name for name in ("own_environment", "own_method")]
    for package in packages:
        shutil.copytree(EXAMPLES / package.name, package)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run([*pip, "--target", folder / "site", *packages], check=True, timeout=300)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "said"), [("own_environment", "WordEnvironment"), ("own_method", "SwiftAdvantage")]
)
def test_the_package_installed_outside_the_clone_trains(package: str, said: str, installed: Path) -> None:
    command = next(command for command in commands(package) if command.startswith("sdar train"))
    run(command.partition(" #")[0], installed / package, *SMALL, "run_dir=run", path=str(installed / "site"))
    folder = installed / package / "run"
    assert json.loads((folder / "results.json").read_text())["training"]["iterations"] == 1
    assert said in (folder / "config.yaml").read_text()
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    assert any(abs(gap) > 0.01 for line in lines for turn in json.loads(line)["turns"] for gap in turn["gaps"])


@pytest.mark.e2e
def test_the_other_commands_of_the_environment_do_what_its_page_says(installed: Path) -> None:
    check, skills, play = commands("own_environment")[:3]
    folder, path = installed / "own_environment", str(installed / "site")
    assert "word_guess keeps to the protocol" in run(check, folder, path=path)
    assert "first_guess" in run(skills, folder, path=path)
    assert "solved in 1 turns, reward 10" in run(play, folder, path=path)


def test_what_the_pages_say_of_models_and_comparisons_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (processes, parallel):
        monkeypatch.setattr(module, "available_gpus", lambda: 1)
    for package, word in (("own_environment", "hf"), ("own_method", "compare")):
        folder = EXAMPLES / package
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)
        (line,) = [command for command in commands(package) if word in command]
        _, command, *overrides = shlex.split(line)
        overrides.remove("--config-dir")
        overrides.remove("settings")
        with allowing(["word_guess"] if package == "own_environment" else ["swift"]):
            if command == "compare":
                request = read_request(overrides, config_dir="settings")
                assert (len(request.methods), len(request.seeds)) == (2, 5)
            else:
                validate(compose_config([*overrides, "run_dir=run"], config_dir="settings"))


# The script for one GPU.


def test_the_script_for_one_gpu_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a command in place of ours that tells its arguments."""
    told = tmp_path / "sdar"
    told.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    told.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    script = ["bash", str(EXAMPLES / "lora_single_gpu.sh"), "seed=2"]
    command, *overrides = subprocess.run(script, check=True, capture_output=True, text=True).stdout.splitlines()
    assert command == "train"
    for module in (processes, parallel):
        monkeypatch.setattr(module, "available_gpus", lambda: 1)
    settings = compose([*overrides, f"run_dir={tmp_path / 'run'}"])
    assert settings.seed == 2
    assert settings.config["model"]["name"] == "Qwen/Qwen2.5-1.5B-Instruct"
    assert settings.config["model"]["lora"]["rank"] == 32


# The notebook.


def texts(notebook: dict[str, object]) -> list[str]:
    """What its cells print, without figures: their last digits differ between machines."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]  # type: ignore[attr-defined]
    printed = ["".join("".join(out.get("text", "")) for out in cell["outputs"]) for cell in cells]
    return [re.sub(r"\s+", " ", re.sub(r"[-+]?\d+(\.\d+)?", "#", text)) for text in printed]


def test_the_notebook_was_run_and_names_no_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = json.loads(text)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    pictures = [out for cell in code for out in cell["outputs"] if "image/png" in out.get("data", {})]
    assert len(pictures) == 2
    shown = [json.dumps(out) for cell in code for out in cell["outputs"] if out not in pictures]
    assert not re.search(r"/(tmp|home|root|Users|work)\b", "".join(shown))
    links = re.findall(r"\]\(([^)#]+)", "".join("".join(c["source"]) for c in notebook["cells"] if c not in code))
    assert len(links) > 3
    assert [link for link in links if not (EXAMPLES / link).exists()] == []


@pytest.mark.slow
def test_the_notebook_runs_and_prints_what_is_stored_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    stored = texts(notebook)
    names = load(ROOT / "scripts" / "run_notebook.py").execute(notebook)
    assert texts(notebook) == stored
    assert names["after"] > names["before"] + 0.05
