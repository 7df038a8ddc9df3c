"""Playing in the terminal, through injected input."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sdar.commands.play import main, play
from sdar.commands.players import PolicyPlayer, load_policy
from sdar.config.compose import compose_config
from sdar.environments.alfworld.environment import AlfworldEnvironment
from sdar.output.terminal import wrapped
from sdar.policy.checkpoint import CHECKPOINT_KEY, origin
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.settings import RolloutSettings, SamplingConfig

SMALL = ("environment=alfworld", "environment.num_tasks=[6,6,6]", "environment.data_dir=null")


class Terminal:
    """Lines to be typed, and what was shown."""

    def __init__(self, *lines, end=EOFError):
        self._lines = list(lines)
        self._end = end
        self.shown = ""

    def read(self, prompt):
        if not self._lines:
            raise self._end
        return self._lines.pop(0)

    def write(self, text):
        self.shown += f"{text}\n"

    def run(self, *arguments):
        return main([*SMALL, *arguments], read=self.read, write=self.write)


@pytest.fixture(scope="module")
def environment():
    return AlfworldEnvironment(num_tasks=(6, 6, 6))


def test_a_person_sees_the_prompt_of_the_model_and_wins(environment):
    task = environment.tasks("valid_seen")[2]
    terminal = Terminal(*environment.expert(task))
    assert terminal.run("--split", "valid_seen", "--index", "2") == 0
    (observation,) = environment.open_pool().reset([task])
    assert task.task_id in terminal.shown
    assert f"[turn 1 of 14]\n{environment.opening(task, observation)}\n" in terminal.shown
    assert f"solved in {len(environment.expert(task))} turns, reward 10" in terminal.shown


def test_the_expert_shows_a_solution_without_asking(environment):
    terminal = Terminal(end=AssertionError)
    assert terminal.run("--expert", "--index", "5") == 0
    for command in environment.expert(environment.tasks("train")[5]):
        assert f"action: {command}\n" in terminal.shown
    assert "\nsolved in" in terminal.shown


def test_with_window_every_prompt_is_shown_as_a_whole(environment):
    task = environment.tasks("train")[5]
    commands = environment.expert(task)
    terminal = Terminal(end=AssertionError)
    assert terminal.run("rollout=window", "rollout.history_turns=1", "--expert", "--index", "5") == 0
    assert f"Steps taken so far: {len(commands) - 1}. The last 1" in terminal.shown
    last = terminal.shown.rindex("[turn ")
    assert terminal.shown[last:].count(f"Your task is to: {task.description}") == 1
    assert f"> {commands[-2]}\n" in terminal.shown[last:]
    assert f"> {commands[-3]}\n" not in terminal.shown[last:]


def test_settings_of_the_environment_apply():
    terminal = Terminal()
    assert terminal.run("environment.prompt_style=full", "environment.list_actions=true") == 0
    assert "between <think> and </think>" in terminal.shown
    assert "Commands you can give now: go to" in terminal.shown


def test_a_question_mark_lists_the_commands_and_costs_no_turn():
    terminal = Terminal("?", "", "look")
    terminal.run()
    assert "\ninventory\nlook\n" in terminal.shown
    assert "[turn 2 of 14]" in terminal.shown
    assert "[turn 3 of 14]" not in terminal.shown


def test_a_whole_response_is_read_as_a_models_would_be():
    terminal = Terminal("<think>let me see</think><action> LOOK </action>")
    terminal.run()
    assert "action: look\n" in terminal.shown


def test_the_turn_limit_ends_the_game():
    terminal = Terminal("dance", "dance", "dance", end=AssertionError)
    assert terminal.run("environment.max_turns=3") == 0
    assert terminal.shown.count("Nothing happens.") == 3
    assert terminal.shown.endswith("not solved\n")


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_leaving_is_quiet(end):
    terminal = Terminal("look", end=end)
    assert terminal.run() == 0
    assert terminal.shown.endswith("\nleft\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "test"], "--split must be one of train, valid_seen, valid_unseen, got test"),
        (["--index", "6"], "--index must be 0 to 5, as train has 6 tasks, got 6"),
        (["--index", "-1"], "got -1"),
        (["--index", "first"], "--index"),
        (["--turns", "3"], "--turns"),
        (["model=tiny"], "model=tiny: only settings of environment, "),
        (["environment=moon"], "environment=moon"),
        (["environment.max_turn=3"], "max_turn"),
        (["environment.max_turns=0"], "max_turns"),
        (["--data-dir", "/no/such/folder"], "/no/such/folder"),
        (["--policy", "moon"], "moon"),
        (["--policy", __file__], "must be a checkpoint inside its run folder"),
        (["--policy", "alfworld", "--expert"], "only one of them can play"),
        (["--policy", "alfworld", "--temperature", "-1"], "temperature"),
        (["--skills"], "--skills"),
        (["--policy", "alfworld", "--skills", "teacher=none"], "teacher=none"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(arguments, message, capsys):
    assert Terminal().run(*arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1


def test_a_game_without_a_known_solution_has_no_expert(monkeypatch, capsys):
    monkeypatch.setattr(AlfworldEnvironment, "expert", lambda self, task: None)
    assert Terminal().run("--expert") == 2
    assert "no solution of task" in capsys.readouterr().err


@pytest.mark.parametrize("environment", ["webshop"])
def test_every_environment_shows_a_solution_and_lists_commands(environment):
    settings = [f"environment={environment}", "environment.data_dir=null"]
    shown = Terminal(end=AssertionError)
    assert main([*settings, "--expert"], read=shown.read, write=shown.write) == 0
    assert "\nsolved in" in shown.shown
    asked = Terminal("?", "click[no such thing]")
    assert main(settings, read=asked.read, write=asked.write) == 0
    assert "search[find me" in asked.shown
    assert "[turn 2 of" in asked.shown


def test_a_model_plays_while_one_watches_and_repeats_itself():
    first, second, other = Terminal(end=AssertionError), Terminal(end=AssertionError), Terminal(end=AssertionError)
    assert first.run("--policy", "alfworld", "--index", "1") == 0
    assert second.run("--policy", "alfworld", "--index", "1") == 0
    assert other.run("--policy", "alfworld", "--index", "1", "--seed", "3", "--temperature", "1") == 0
    assert first.shown == second.shown != other.shown
    assert "response: <think>" in first.shown


def test_a_model_plays_what_a_rollout_plays(environment):
    task = environment.tasks("train")[1]
    policy = load_policy("alfworld")
    settings = RolloutSettings(sampling=SamplingConfig(0.4, 1.0, 0, 48))
    episode = Collector(policy, environment, settings).collect([EpisodeRequest(task, 0)], seed=5, key=("play",))
    player = PolicyPlayer(policy, environment, task, settings.sampling, window=False, seed=5)
    terminal = Terminal()
    play(environment, task, player, terminal.write)
    for turn in episode.episodes[0].turns:
        assert f"response: {turn.response_text}\n" in terminal.shown
    assert terminal.shown.count("response: ") == len(episode.episodes[0].turns)


def test_a_watched_model_reads_skills_and_fresh_prompts():
    terminal = Terminal(end=AssertionError)
    assert terminal.run("--policy", "alfworld", "--skills", "rollout=window") == 0
    assert "the model also reads:\n[Privileged Skill Information]" in terminal.shown
    assert "Steps taken so far: 2" in terminal.shown


def test_a_checkpoint_plays_what_its_run_played(tmp_path, capsys):
    policy = load_policy("alfworld")
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    config = compose_config(["environment.num_tasks=[6,6,6]", "environment.max_turns=2", "environment.data_dir=null"])
    config["run_dir"] = str(tmp_path)
    OmegaConf.save(config, tmp_path / "config.yaml", resolve=True)
    state = {f"model.{name}": value for name, value in policy.model.state_dict().items()}
    torch.save({"state_dict": state, CHECKPOINT_KEY: origin(policy)}, checkpoints / "last.ckpt")
    terminal = Terminal(end=AssertionError)
    assert main(["--policy", str(checkpoints / "last.ckpt")], read=terminal.read, write=terminal.write) == 0
    assert "[turn 1 of 2]" in terminal.shown
    assert "response: " in terminal.shown


@pytest.mark.parametrize("settings", ["environment: 3", "environment: [1]", "environment: null", "seed: 0"])
def test_a_run_without_an_environment_is_told_in_one_sentence(tmp_path, capsys, settings):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "config.yaml").write_text(settings)
    assert main(["--policy", str(tmp_path / "checkpoints" / "last.ckpt"), "--data-dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: environment must be the settings of an environment, got ")


@given(text=st.text("ab -\n", max_size=300), columns=st.integers(1, 40))
def test_wrapped_lines_fit_and_keep_their_words(text, columns):
    found = wrapped(text, columns)
    assert found.split() == text.split()
    for line in found.split("\n"):
        assert len(line) <= columns or len(line.split()) <= 1


def test_what_fits_is_not_touched():
    text = "one  line\n\n  - another one\n" + "x" * 100
    assert wrapped(text, 80) == text
    assert wrapped("- " + "word " * 4 + "end", 16) == "- word word word\n  word end"
    assert wrapped("  " + "word " * 4 + "end", 16) == "  word word word\n    word end"


def test_words_are_whole_in_a_terminal_and_lines_elsewhere(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    arguments = [*SMALL, "--expert", "environment.prompt_style=full"]
    assert main(arguments) == 0
    piped = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert max(map(len, piped.splitlines())) > 80 >= max(map(len, shown.splitlines()))
    assert shown.split() == piped.split()


@pytest.mark.e2e
def test_it_runs_as_a_program():
    command = [sys.executable, "-m", "sdar.commands.play", *SMALL]
    done = subprocess.run(command, input="look\n", capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Your task is to: " in done.stdout
    assert "[turn 2 of 14]" in done.stdout
    assert done.stderr == ""


def test_questions_of_ones_own_are_played_over_a_search_engine(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"question": "Who lived in the mill?", "golden_answers": ["Ada"]}\n')
    (tmp_path / "corpus").write_text('{"id": "1", "contents": "\\"Mill\\"\\nAda lived there."}\n')
    typed, shown = iter(["<search>mill</search>", "<answer>Ada</answer>"]), []
    settings = [
        "environment=search_qa",
        f"environment.data_dir={tmp_path}",
        "search_engine=bm25",
        f"environment.search_engine.corpus={tmp_path}/corpus",
        f"environment.search_engine.cache_dir={tmp_path}",
    ]
    assert main(settings, read=lambda *_: next(typed), write=shown.append) == 0
    assert any("Doc 1(Title: Mill) Ada lived there." in text for text in shown)
    assert "solved in 2 turns, reward 10" in shown[-1]
