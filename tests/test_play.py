"""Playing in the terminal, through injected input."""

import subprocess
import sys

import pytest

from sdar.environments.alfworld.environment import AlfworldEnvironment
from sdar.play import main

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
        (["--split", "test"], "--split test: allowed are train, valid_seen, valid_unseen"),
        (["--index", "6"], "--index 6: train has 6 tasks, so 0 to 5 are allowed"),
        (["--index", "-1"], "--index -1"),
        (["--index", "first"], "--index"),
        (["--turns", "3"], "--turns"),
        (["model=tiny"], "model=tiny: only settings of the environment"),
        (["environment=moon"], "environment=moon"),
        (["environment.max_turn=3"], "max_turn"),
        (["environment.max_turns=0"], "max_turns"),
        (["--data-dir", "/no/such/folder"], "/no/such/folder"),
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


def test_it_runs_as_a_program():
    command = [sys.executable, "-m", "sdar.play", *SMALL]
    done = subprocess.run(command, input="look\n", capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Your task is to: " in done.stdout
    assert "[turn 2 of 14]" in done.stdout
    assert done.stderr == ""
