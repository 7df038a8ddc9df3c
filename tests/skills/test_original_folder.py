"""Folders in the format of the paper's release are read unchanged."""

import json
import os

import pytest

from sdar.episode import Task
from sdar.errors import UserError
from sdar.skills.controls import AdversarialRetrieval
from sdar.skills.library import Skill, SkillKind, SkillLibrary
from sdar.skills.retrieval import Draw, KeywordRetrieval, TaskTypeRetrieval
from sdar.teacher.skills import misfits

MAPPING = {
    "skill_files": {"general_skills": "general_skills.md", "heat": "heat.md", "look": "look.md"},
    "task_to_skill": {"pick_heat_then_place_in_recep": "heat", "reheat": "heat"},
    "task_keywords": {"heat": ["heat", "hot"], "reheat": ["hot", "warm"], "look": ["look at"]},
}


@pytest.fixture
def folder(tmp_path):
    for name in ("general_skills", "heat", "look"):
        (tmp_path / f"{name}.md").write_text(f"# {name}\n\nDo {name}.\n")
    return tmp_path


def load(folder, **changes):
    (folder / "skill_mapping.json").write_text(json.dumps(MAPPING | changes))
    return SkillLibrary.load(folder)


def test_skills_types_and_keywords(folder):
    assert list(load(folder)) == [
        Skill("general_skills", SkillKind.GENERAL, (), (), "# general_skills\n\nDo general_skills."),
        Skill(
            "heat",
            SkillKind.TASK,
            ("pick_heat_then_place_in_recep", "reheat"),
            ("heat", "hot", "warm"),
            "# heat\n\nDo heat.",
        ),
        Skill("look", SkillKind.TASK, ("look",), ("look at",), "# look\n\nDo look."),
    ]


def test_they_are_chosen_by_whole_words_and_by_type(folder):
    library = load(folder)
    task = Task("t", "look", "heat the hotplate", "train", "hash")
    assert [skill.name for skill in KeywordRetrieval(general=False).select(library, task)] == ["heat"]
    assert [skill.name for skill in TaskTypeRetrieval(general=False).select(library, task)] == ["look"]


RELEASED = {
    "skill_files": {
        name: f"{name}.md" for name in ("general_skills", "pick_and_place", "look_at_obj_in_light", "heat", "clean")
    },
    "task_to_skill": {
        "pick_and_place": "pick_and_place",
        "pick_two_obj_and_place": "pick_and_place",
        "look_at_obj_in_light": "look_at_obj_in_light",
        "pick_heat_then_place_in_recep": "heat",
        "pick_clean_then_place_in_recep": "clean",
    },
}
"""The release's ALFWorld folder (ZJU-REAL/SDAR at 8b85c23, skills/alfworld), without one of its types."""


@pytest.fixture
def released(tmp_path):
    for name in RELEASED["skill_files"]:
        (tmp_path / f"{name}.md").write_text(f"# {name}\n\nDo {name}.\n")
    (tmp_path / "skill_mapping.json").write_text(json.dumps(RELEASED))
    return tmp_path


def selected(library, task_type, general=False):
    task = Task("t", task_type, "put a mug in shelf", "train", "hash")
    return [skill.name for skill in TaskTypeRetrieval(general=general).select(library, task)]


def test_a_key_is_for_every_type_that_contains_it(released):
    library = SkillLibrary.load(released)
    assert selected(library, "pick_and_place_simple") == ["pick_and_place"]
    assert selected(library, "pick_and_place_with_movable_recep") == ["pick_and_place"]
    assert selected(library, "pick_two_obj_and_place") == ["pick_and_place"]
    assert selected(library, "pick_heat_then_place_in_recep", general=True) == ["general_skills", "heat"]
    assert selected(library, "pick_cool_then_place_in_recep", general=True) == ["general_skills"]


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"pick": "clean", "pick_and_place_simple": "heat"}, "clean"),
        ({"pick_and_place_simple": "heat", "pick": "clean"}, "heat"),
        ({"place_simple": "heat"}, "heat"),
    ],
)
def test_the_first_key_decides_even_where_a_later_one_is_the_whole_name(released, keys, found):
    (released / "skill_mapping.json").write_text(json.dumps(RELEASED | {"task_to_skill": keys}))
    assert selected(SkillLibrary.load(released), "pick_and_place_simple") == [found]


def test_the_order_of_the_keys_is_part_of_the_content(released):
    first = SkillLibrary.load(released).content_hash
    turned = dict(reversed(RELEASED["task_to_skill"].items()))
    (released / "skill_mapping.json").write_text(json.dumps(RELEASED | {"task_to_skill": turned}))
    assert SkillLibrary.load(released).content_hash != first


def test_a_wrong_skill_is_none_that_a_key_covers(released):
    words = {key: ["nowhere"] for key in RELEASED["task_to_skill"]}
    (released / "skill_mapping.json").write_text(json.dumps(RELEASED | {"task_keywords": words}))
    library = SkillLibrary.load(released)
    task = Task("t", "pick_and_place_simple", "put a mug in shelf", "train", "hash")
    wrong = {
        choice.skill.name for seed in range(60) for choice in AdversarialRetrieval().choose(library, task, Draw(seed))
    }
    assert wrong == {"look_at_obj_in_light", "heat", "clean"}


def test_a_type_without_a_task_skill_is_told_before_the_run(released):
    library = SkillLibrary.load(released)
    names = ("pick_and_place_simple", "pick_cool_then_place_in_recep", "pick_heat_then_place_in_recep")
    tasks = [Task(name, name, "put a mug in shelf", "train", name) for name in names]
    told = misfits(library, TaskTypeRetrieval(), tasks)
    assert told == (
        "the retrieval finds only general skills for the training tasks of the types pick_cool_then_place_in_recep"
    )
    assert misfits(library, TaskTypeRetrieval(), [tasks[0], tasks[2]]) == ""
    assert "but the tasks are pick_cool" in misfits(library, TaskTypeRetrieval(), tasks[1:2])


def test_keywords_are_optional_and_those_of_no_skill_are_named(folder, caplog):
    assert [skill.keywords for skill in load(folder, task_keywords={}).task] == [(), ()]
    load(folder, task_keywords={"clean": ["clean"], "other": []})
    assert "the keywords of 'clean' belong to no skill" in caplog.text
    assert "other" not in caplog.text


def test_questions_find_their_skill_by_data_set_as_in_the_releases_code(tmp_path):
    names = ("general_skills", "direct_retrieval", "entity_attribute_lookup", "multi_hop_reasoning", "compare")
    for name in names:
        (tmp_path / f"{name}.md").write_text(f"Do {name}.")
    library = load(
        tmp_path,
        skill_files={name: f"{name}.md" for name in names},
        task_to_skill={name: name for name in names[1:]} | {"musique": "compare"},
        task_keywords={},
    )

    def read(data_set):
        task = Task("t", data_set, "who?", "train", "hash")
        return [skill.name for skill in TaskTypeRetrieval(general=False).select(library, task)]

    assert [read(name) for name in ("nq", "triviaqa")] == [["direct_retrieval"]] * 2
    assert read("popqa") == ["entity_attribute_lookup"]
    assert [read(name) for name in ("hotpotqa", "2wikimultihopqa", "bamboogle")] == [["multi_hop_reasoning"]] * 3
    assert read("musique") == read("compare") == ["compare"]  # the folder takes precedence
    assert read("trec") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skill_files": None}, "skill_files must be a mapping, got None"),
        (
            {"skill_files": {"heat": "no.md"}, "task_to_skill": {}},
            "skill_files['heat']='no.md' cannot be read (No such file or directory)",
        ),
        ({"task_to_skill": {"heat": "cook"}}, "task_to_skill['heat'] must be a name in skill_files, got 'cook'"),
        ({"task_to_skill": {"heat": ["heat"]}}, "task_to_skill['heat'] must be a name in skill_files, got ['heat']"),
        ({"task_keywords": {"heat": "hot"}}, "task_keywords['heat'] must be a list of strings, got 'hot'"),
    ],
)
def test_what_is_wrong_is_named(folder, changes, message):
    with pytest.raises(UserError, match=r"skill_mapping\.json: ") as caught:
        load(folder, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text('{"skill_files":' * 100_000), "(it is nested too deeply)"),
        (os.mkfifo, "must be a regular file, got a named pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "must be a regular file, got a device"),
        (lambda path: path.symlink_to(path), "cannot be read (Too many levels of symbolic links)"),
    ],
)
def test_a_mapping_that_would_block_or_fill_the_memory_is_refused(folder, make, message):
    (folder / "skill_mapping.json").unlink(missing_ok=True)
    make(folder / "skill_mapping.json")
    with pytest.raises(UserError) as caught:
        SkillLibrary.load(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize("file", ["../secret.md", "/etc/hostname", 3, ["heat.md"]])
def test_skills_are_files_of_the_folder(folder, file):
    with pytest.raises(UserError, match=r"skill_files\['heat'\] must be the name of a file in the folder, got "):
        load(folder, skill_files={"heat": file}, task_to_skill={}, task_keywords={})


def test_a_mapping_that_is_no_json_and_an_empty_file_are_refused(folder):
    (folder / "heat.md").write_text(" \n")
    with pytest.raises(UserError, match=r"must be a non-empty file, got 'heat\.md'"):
        load(folder)
    (folder / "skill_mapping.json").write_text("{")
    with pytest.raises(UserError, match="it must be JSON, got a damaged or incomplete file"):
        SkillLibrary.load(folder)
