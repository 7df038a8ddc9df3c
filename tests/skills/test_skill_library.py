"""Skill files are read as written, and a wrong one is named with what it must be."""

import os
import re
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest

from sdar.errors import UserError
from sdar.skills.library import SHIPPED, Skill, SkillKind, SkillLibrary

GENERAL = "---\nname: basics\nkind: general\n---\n\nLook first.\n\n---\n\nThen act.\n"
HEAT = "---\nname: heat\nkind: task\ntask_types: [pick_heat]\nkeywords: [hot, heat up]\n---\nUse the microwave.\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "heat.md").write_text(HEAT)
    (tmp_path / "zz_basics.md").write_text(GENERAL)
    return tmp_path


def test_library_reads_every_file_general_skills_first(folder):
    library = SkillLibrary.load(folder)
    assert list(library) == [
        Skill("basics", SkillKind.GENERAL, (), (), "Look first.\n\n---\n\nThen act."),
        Skill("heat", SkillKind.TASK, ("pick_heat",), ("hot", "heat up"), "Use the microwave."),
    ]
    assert len(library) == 2
    assert [skill.name for skill in library.general] == ["basics"]
    assert [skill.name for skill in library.task] == ["heat"]


def test_content_hash_follows_the_content_and_not_the_file_names(folder):
    before = SkillLibrary.load(str(folder)).content_hash
    (folder / "heat.md").rename(folder / "other.md")
    assert SkillLibrary.load(folder).content_hash == before
    (folder / "other.md").write_text(HEAT.replace("microwave", "stove"))
    assert SkillLibrary.load(folder).content_hash != before


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(folder):
    (folder / "heat.md").write_bytes(b"\xef\xbb\xbf" + HEAT.replace("\n", "\r\n").encode())
    assert SkillLibrary.load(folder).task[0].keywords == ("hot", "heat up")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Use the microwave.", "heat.md: it has no front matter; it must begin with name, kind"),
        ("---\nname: heat\nUse the microwave.", "it has no front matter"),
        ("---\njust a sentence\n---\nUse it.", "it has no front matter"),
        ("---\nname: [heat\n---\nUse it.", "heat.md: its front matter is not plain YAML"),
        (
            HEAT.replace("name: heat", "name: 2020-13-41"),
            "heat.md: its front matter is not plain YAML (month must be in",
        ),
        (HEAT.replace("name: heat", "name: !!python/name:os.system"), "heat.md: its front matter is not plain YAML"),
        (
            HEAT.replace("keywords", "keyword"),
            "the fields must be among name, kind, task_types, keywords, got 'keyword'",
        ),
        (HEAT.replace("name: heat", "name: ''"), "name must be a non-empty string, got ''"),
        (HEAT.replace("name: heat", "name: 3"), "name must be a non-empty string, got 3"),
        (HEAT.replace("kind: task", "kind: special"), "kind must be general or task, got 'special'"),
        (HEAT.replace("kind: task\n", ""), "kind must be general or task, got None"),
        (HEAT.replace("[hot, heat up]", "hot"), "keywords must be a list of strings, got 'hot'"),
        (HEAT.replace("[hot, heat up]", "[hot, on]"), "keywords must contain only non-empty strings, got True"),
        (HEAT.replace("[hot, heat up]", "[hot, ' ']"), "keywords must contain only non-empty strings, got ' '"),
        (HEAT.replace("task_types: [pick_heat]\n", ""), "a task skill must have at least one of task_types"),
        (HEAT.replace("kind: task", "kind: general"), "a general skill must have neither"),
        (HEAT.replace("Use the microwave.", " "), "it has no text"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(folder, text, message):
    (folder / "heat.md").write_text(text)
    with pytest.raises(UserError) as caught:
        SkillLibrary.load(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


ALIAS_BOMB = "a: &a [x, x]\n" + "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in pairwise("abcdefghi"))
NOT_FILES = [
    (os.mkfifo, "it must be a regular file, got a named pipe"),
    (lambda path: path.symlink_to("/dev/zero"), "it must be a regular file, got a device"),
    (lambda path: path.symlink_to(path), "it cannot be read (Too many levels"),
    (lambda path: path.write_text(HEAT + "x" * 300_000), "it must have at most 256 kB, got 300.1 kB"),
    (lambda path: path.write_text(f"---\n{ALIAS_BOMB}---\nUse it."), "is not plain YAML (it has the alias *a; write"),
    (lambda path: path.write_text("---\nname: &x heat\nkind: *x\n---\nUse it."), "it has the alias *x"),
    (
        lambda path: path.write_text(f"---\nname: {'[' * 2_000}\n---\nUse it."),
        "its front matter is not plain YAML (it is nested too deeply)",
    ),
    (lambda path: path.write_text(f"---\nname: [{'a, ' * 5_000}]\n---\nUse it."), "string, got ['a', 'a', 'a', "),
    (lambda path: path.write_text(f"---\nname: 0x{'f' * 100_000}\n---\nUse it."), "name must be a non-empty string"),
    (lambda path: path.write_bytes(HEAT.encode() + b"\0"), "it must be UTF-8 text, got a NUL character"),
]


@pytest.mark.parametrize(("make", "message"), NOT_FILES)
def test_what_would_block_or_fill_the_memory_is_a_wrong_file(folder, make, message):
    (folder / "heat.md").unlink()
    make(folder / "heat.md")
    with pytest.raises(UserError) as caught:
        SkillLibrary.load(folder)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


def test_all_wrong_files_are_named_at_once(folder):
    (folder / "a.md").write_text("nothing")
    (folder / "b.md").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(
        UserError, match=r"a\.md: it has no front matter.*; b\.md: it must be UTF-8 text, got other bytes"
    ):
        SkillLibrary.load(folder)


def test_what_is_no_file_is_named_among_the_wrong_ones(folder):
    (folder / "folder.md").mkdir()
    (folder / "link.md").symlink_to(folder / "nowhere")
    with pytest.raises(
        UserError, match=r"folder\.md: it must be a regular file, got a directory; link\.md: it cannot be read \(No"
    ):
        SkillLibrary.load(folder)


def test_a_name_used_twice_is_refused(folder):
    (folder / "again.md").write_text(HEAT)
    with pytest.raises(UserError, match=r"heat\.md: name must be unique, got 'heat' as in again\.md"):
        SkillLibrary.load(folder)
    with pytest.raises(UserError, match="must be unique in a library, got 'heat' twice"):
        SkillLibrary((Skill("heat", SkillKind.GENERAL, (), (), "a"), Skill("heat", SkillKind.GENERAL, (), (), "b")))


def test_a_folder_that_does_not_exist_or_holds_no_skill_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"skills must be a directory or a shipped library \(.*\), got no-such-library"):
        SkillLibrary.load("no-such-library")
    with pytest.raises(UserError, match=r"must contain at least one \*\.md file"):
        SkillLibrary.load(tmp_path)


@pytest.mark.parametrize("name", sorted(p.name for p in SHIPPED.glob("*") if any(p.glob("*.md"))))
def test_shipped_libraries_load_by_name(name):
    library = SkillLibrary.load(name)
    assert library.general
    assert library.task


def test_the_library_in_the_documentation_can_be_copied(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "skills.md").read_text(encoding="utf-8")
    files = re.findall(r"`my_skills/(\w+\.md)`:\n\n((?:    .*\n|\n(?=    ))+)", page)
    assert [name for name, _ in files] == ["general.md", "refund.md"]
    for name, block in files:
        (tmp_path / name).write_text(textwrap.dedent(block))
    library = SkillLibrary.load(tmp_path)
    assert [skill.name for skill in library.general] == ["general"]
    assert library.task[0].keywords == ("refund", "money back")
    assert library.task[0].text == "1. Look up the order before you promise anything."
