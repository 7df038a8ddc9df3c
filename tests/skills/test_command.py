"""``sdar skills`` shows what would be retrieved, and why."""

import pytest

from sdar.commands.skills import main
from sdar.config.sources import config_folder, groups

FEW = "environment.num_tasks=[6,6,6]"
SKILL = "---\nname: {name}\nkind: task\ntask_types: [{kind}]\nkeywords: [{words}]\n---\nAbout {name}.\n"


def run(*arguments):
    lines = []
    code = main(arguments, lines.append)
    return code, "\n".join(lines)


def test_show_names_every_strategy_and_why_it_chose():
    hot = "task=put a hot mug in cabinet"
    code, text = run("show", "environment=alfworld", FEW, hot, "retrieval.top_k=2", "retrieval=bm25")
    assert code == 0
    assert "type: pick_heat_then_place_in_recep" in text
    sections = dict(part.split("\n", 1) for part in text.split("\nretrieval=")[1:])
    assert sorted(sections) == sorted(groups(config_folder())["retrieval"])
    assert "the task says 'hot'" in sections["keyword"]
    assert sections["bm25"].count("BM25 score") == 2
    assert "nothing" in sections["none"]
    assert "wrong on purpose" in sections["adversarial"]
    assert "heat " not in sections["adversarial"]
    assert "never tried" in sections["ucb"]


def test_the_type_comes_from_the_environments_own_task_or_from_the_command_line():
    from sdar.environments.alfworld.environment import AlfworldEnvironment

    task = AlfworldEnvironment(num_tasks=(6, 6, 6)).tasks("valid_seen")[3]
    _, text = run("show", FEW, f"task={task.description.upper()}")
    assert f"type: {task.task_type} (that of " in text
    _, text = run("show", "task=sing", "type=pick_cool_then_place_in_recep")
    assert "type: pick_cool_then_place_in_recep (as given)" in text
    assert "for pick_cool_then_place_in_recep" in text


def test_check_counts_what_keywords_select_and_names_what_selects_nothing(tmp_path):
    (tmp_path / "heat.md").write_text(SKILL.format(name="heat", kind="x", words="hot, heat"))
    (tmp_path / "song.md").write_text(SKILL.format(name="song", kind="y", words="sing"))
    code, text = run("check", "environment=alfworld", f"skills={tmp_path}", "environment.num_tasks=[12,6,6]")
    assert code == 0
    assert "2 tasks: heat 100.0%" in text
    assert "no task skill for: " in text
    assert "never selected: song" in text
    assert "task types of the library that no task has: x, y" in text
    assert "retrieval=task_type finds none: look_at_obj_in_light, pick_and_place_simple" in text
    _, whole = run("check", "environment=alfworld", "model=hf", "model.name=x", "environment.num_tasks=[12,6,6]")
    assert "library: alfworld_llm, 7 skills" in whole
    assert "never selected" not in whole
    assert "task types" not in whole


def test_real_questions_are_checked_without_their_corpus(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"question": "Who is the father of Ada?", "golden_answers": ["B"]}\n')
    settings = ("environment=search_qa", "skills=search_qa_open", f"environment.data_dir={tmp_path}")
    code, text = run("check", *settings, "search_engine=http")
    assert code == 0
    assert "1 tasks: entity_attribute 100.0%" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list",), "list: it must be show or check"),
        (("show",), "task must be the description of a task"),
        (("show", "task=x", "seed=-1"), "seed must be a whole number >= 0, got -1"),
        (
            ("show", "task=x", "trainer.max_epochs=3"),
            "only settings of environment, search_engine, skills, retrieval, model",
        ),
        (
            ("show", "task=x", "skills=nowhere"),
            "skills must be a directory or a shipped library (alfworld",
        ),
        (
            ("show", "task=x", "retrieval=bm25", "retrieval.top_k=0"),
            "retrieval.top_k must be a whole number >= 1, got 0",
        ),
        (("check", "task=x"), "check looks at every task"),
    ],
)
def test_mistakes_are_told_in_one_sentence(arguments, message, capsys):
    assert run(*arguments)[0] == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1


def test_help_shows_how():
    assert "sdar skills show" in run()[1] == run("--help")[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("top_k: 2\n", "retrieval=a: retrieval"),
        ("- a\n", "retrieval=a: retrieval must be an object"),
        ("_target_: ${nowhere}\n", "retrieval=a: retrieval._target_: the value cannot be resolved"),
        ("_target_: [\n", "a.yaml must be plain YAML"),
    ],
)
def test_a_broken_strategy_of_ones_own_is_told_in_one_sentence(tmp_path, capsys, content, said):
    (tmp_path / "retrieval").mkdir()
    (tmp_path / "retrieval" / "a.yaml").write_text(content)
    code, _ = run("show", f"--config-dir={tmp_path}", "environment=alfworld", FEW, "task=put a hot mug in cabinet")
    error = capsys.readouterr().err
    assert code == 2
    assert said in error
    assert "Traceback" not in error
    assert error.count("\n") == 1
