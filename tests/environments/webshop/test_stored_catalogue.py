"""The full files: a catalogue on disk that sells, asks for and finds what the one in memory does."""

from __future__ import annotations

import json
import os
import random
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from small_shop import record
from webshop_data import FOLDER, needs_data

from sdar.environments.task_list import TaskList, content_hash, place_of, shared_tasks, tasks_by_type
from sdar.environments.webshop import dataset, storing
from sdar.environments.webshop.environment import WebshopEnvironment, open_shop
from sdar.environments.webshop.nouns import noun_source
from sdar.environments.webshop.shop import Session
from sdar.episode import Task
from sdar.errors import UserError
from sdar.evaluation.panel import assert_disjoint, make_panel
from sdar.learning.datamodule import sample_tasks

ORDER = {"instruction": "I want it.", "instruction_attributes": ["soft"], "instruction_options": ["red"]}


def made_up(count: int) -> tuple[list[dict], dict, dict]:
    """Products with all that occurs: ranges of prices, no price, repeated values, no options, no goal, odd texts."""
    rng = random.Random(5)
    records, attributes, orders = [], {}, {}
    for number in range(count):
        asin = f"B{rng.randrange(10**6):06d}"
        options = rng.choice(
            [
                {
                    "Color": [{"value": "Red "}, {"value": "Blue/Grey"}],
                    "Size": [{"value": "Small"}, {"value": "Large"}],
                },
                {"Size": [{"value": "Small"}, {"value": "small"}, {"value": "Large"}]},  # twice the same goal
                {"Color": [], "Size": None},
                {"Color": []},
                "",
            ]
        )
        fields = {
            "name": f"{rng.choice(['Red', 'Soft', 'Été'])} {rng.choice(['scarf', 'hat', 'mug 🍎'])} {number % 7}",
            "pricing": rng.choice(["$20.00", "$5 - $90.5", "", "$995"]),
            "customization_options": options,
            "category": rng.choice(["apparel", "home", "Küche \ud800"]),
            "small_description": rng.choice([["Soft wool.", "Hand wash."], "text", None]),
        }
        records.append(record(asin, **fields))
        if number % 5:
            attributes[asin] = {
                "attributes": ["soft wool"],
                "instruction": f"Find me {fields['name'].lower()}",
                "instruction_attributes": ["soft"],
            }
        orders[asin] = [ORDER] * (number % 3) + [ORDER | {"instruction_attributes": []}]
    return records, attributes, orders


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same products as the small set and as the full one."""
    folder = tmp_path_factory.mktemp("files")
    records, attributes, orders = made_up(2000)
    for mark in ("", "_1000"):
        (folder / f"items_shuffle{mark}.json").write_text(json.dumps(records), encoding="utf-8")
        (folder / f"items_ins_v2{mark}.json").write_text(json.dumps(attributes), encoding="utf-8")
    (folder / "items_human_ins.json").write_text(json.dumps(orders), encoding="utf-8")
    return folder


def both(files: Path, index_dir: Path, **settings: object) -> tuple[WebshopEnvironment, WebshopEnvironment]:
    """In memory, and on disk."""
    small = WebshopEnvironment(data_dir=files, **settings)
    return small, WebshopEnvironment(data_dir=files, use_small=False, index_dir=index_dir, **settings)


def assert_same(one: WebshopEnvironment, other: WebshopEnvironment, searches: int = 40) -> None:
    assert one.splits() == other.splits()
    for split in one.splits():
        expected = list(one.tasks(split))
        assert list(other.tasks(split)) == expected
        assert [task.payload for task in other.tasks(split)] == [task.payload for task in expected]
    assert dict(one.shop.products) == dict(other.shop.products)
    assert dict(one.shop.prices) == dict(other.shop.prices)
    assert all(list(one.shop.nouns(p)) == list(other.shop.nouns(p)) for p in one.shop.products.values())
    texts = [task.description.lower() for split in one.splits() for task in one.tasks(split)]
    for query in random.Random(0).sample(texts, min(searches, len(texts))):
        assert list(one.shop.search(query)) == list(other.shop.search(query))


@pytest.mark.parametrize("human", [False, True])
def test_a_catalogue_on_disk_is_that_in_memory(files: Path, tmp_path: Path, human: bool) -> None:
    one, other = both(files, tmp_path, human_goals=human, price_seed=3)
    assert_same(one, other)
    assert isinstance(other.tasks("test"), TaskList)
    dropped = sum(len(other.tasks(split)) for split in other.splits())
    asked = max(int(task.task_id.split("/")[1]) for split in one.splits() for task in one.tasks(split)) + 1
    assert dropped < asked  # goals that occur twice are tasks once


@needs_data
def test_the_originals_small_set_is_the_same_on_disk(tmp_path: Path) -> None:
    for name in ("items_shuffle", "items_ins_v2"):
        (tmp_path / f"{name}.json").symlink_to(FOLDER / f"{name}_1000.json")
    (tmp_path / "title_nouns.json").symlink_to(next(FOLDER.glob("title_nouns*.json")))
    full = WebshopEnvironment(data_dir=tmp_path, use_small=False, index_dir=tmp_path / "cache")
    assert_same(WebshopEnvironment(data_dir=FOLDER), full, searches=200)


def test_what_is_drawn_from_many_tasks_is_drawn_without_making_them(files: Path, tmp_path: Path) -> None:
    one, other = both(files, tmp_path)
    few, many = one.tasks("train"), other.tasks("train")
    assert {name: list(tasks) for name, tasks in tasks_by_type(many).items()} == tasks_by_type(few)
    for iteration in range(3):
        settings = {"seed": 1, "iteration": iteration, "rounds": 2}
        assert sample_tasks(many, 8, **settings) == sample_tasks(few, 8, **settings)
    assert make_panel(one, None, 60, 0) == make_panel(other, None, 60, 0)
    assert_disjoint(make_panel(other, None, 60, 0), many)
    twin = Task("test/1", "home", "", "test", few[3].content_hash, few[3].payload)
    named = Task(few[5].task_id, "home", "", "test", "another")
    neither = Task("test/2", "home", "", "test", "another", few[3].payload)
    for tasks in (few, many):
        assert shared_tasks([twin, named, neither], tasks) == [twin, named]
        assert place_of(few[9].task_id, tasks) == 9
        for name in ("train/0", "train/01500", "train/x", "train/", "test/1600", "", "train/" + "9" * 40):
            assert place_of(name, tasks) is None
    assert many[-1] == few[-1]
    assert many[2:5] == few[2:5]
    with pytest.raises(IndexError):
        many[len(many)]


def test_task_lists_tell_their_content_apart(files: Path, tmp_path: Path) -> None:
    _, other = both(files, tmp_path)
    _, again = both(files, tmp_path)
    _, seeded = both(files, tmp_path, price_seed=1)
    hashes = [content_hash(environment.tasks("train")) for environment in (other, again, seeded)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert content_hash(other.tasks("test")) != hashes[0]


def test_a_session_buys_what_it_finds(files: Path, tmp_path: Path) -> None:
    one, other = both(files, tmp_path)
    for task in one.tasks("test")[:40]:
        plan = one.expert(task)
        assert plan == other.expert(task)
        sessions = [Session(environment.shop, task.payload) for environment in (one, other)]
        for action in plan or [f"search[{task.description}]", "click[next >]", "click[buy now]"]:
            for session in sessions:
                session.step(action)
            assert sessions[0].observation == sessions[1].observation
            assert sessions[0].clickables == sessions[1].clickables
        assert sessions[0].score == sessions[1].score


def folders(root: Path) -> list[Path]:
    return [path for path in (root / "webshop").iterdir() if path.is_dir()]


def test_the_folder_belongs_to_the_content_the_draws_and_the_code(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(files, copy)
    cache = tmp_path / "cache"

    def opened(**settings: object) -> int:
        WebshopEnvironment(data_dir=copy, use_small=False, index_dir=cache, **settings)
        return len(folders(cache))

    assert opened() == 1
    monkeypatch.setattr(storing, "_make", None)  # nothing is made again
    assert opened() == 1
    os.utime(copy / "items_shuffle.json", (0, 0))
    assert opened() == 1
    monkeypatch.undo()
    assert opened(price_seed=1) == 2
    assert opened(human_goals=True) == 3
    asins = [entry["asin"] for entry in json.loads((copy / "items_shuffle.json").read_text())]
    (copy / "title_nouns.json").write_text(json.dumps({asin: ["scarf"] for asin in asins}))
    assert opened() == 4
    records = json.loads((copy / "items_shuffle.json").read_text())
    (copy / "items_shuffle.json").write_text(json.dumps(records[:-1]))
    assert opened() == 5
    monkeypatch.setattr(storing, "_code", lambda: b"another version")
    assert opened() == 6


def test_a_catalogue_that_was_cut_short_is_made_again_and_a_damaged_one_is_refused(files: Path, tmp_path: Path) -> None:
    _, first = both(files, tmp_path)
    (folder,) = folders(tmp_path)
    stump = folder.parent / f".{folder.name}-killed"
    stump.mkdir()
    (folder / "records.bin").write_bytes((folder / "records.bin").read_bytes()[:-1])
    _, again = both(files, tmp_path)
    assert list(again.tasks("test")) == list(first.tasks("test"))
    assert folders(tmp_path) == [folder]
    (folder / "prices.npy").write_bytes(b"x" * (folder / "prices.npy").stat().st_size)
    with pytest.raises(UserError, match=r"environment\.index_dir has a damaged catalogue in .*; remove that folder"):
        both(files, tmp_path)


def test_a_folder_that_cannot_be_written_is_told(files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"environment\.index_dir must be a writable directory with enough space"):
        both(files, tmp_path / "file")


def test_the_cache_folder_of_the_user_is_the_default(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDAR_CACHE", str(tmp_path / "cache"))
    WebshopEnvironment(data_dir=files, use_small=False)
    assert len(folders(tmp_path / "cache")) == 1


def _open(folders: tuple[Path, Path]) -> str:
    environment = WebshopEnvironment(data_dir=folders[0], use_small=False, index_dir=folders[1])
    return content_hash(environment.tasks("test"))


def test_processes_that_open_it_at_once_make_it_once(files: Path, tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        assert len(set(pool.map(_open, [(files, tmp_path)] * 3))) == 1
    assert len(folders(tmp_path)) == 1


def test_nouns_are_read_from_their_file_and_a_missing_entry_leaves_nothing_behind(files: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(files, copy)
    asins = list(dict.fromkeys(entry["asin"] for entry in json.loads((copy / "items_shuffle.json").read_text())))
    cache = tmp_path / "cache"
    (copy / "title_nouns.json").write_text(json.dumps({asin: ["scarf", asin] for asin in asins[:-1]}))
    with pytest.raises(UserError, match=f"must have an entry for every product, got none for {asins[-1]}"):
        WebshopEnvironment(data_dir=copy, use_small=False, index_dir=cache)
    assert not folders(cache)
    (copy / "title_nouns.json").write_text(json.dumps({asin: ["scarf", asin] for asin in asins}))
    shop = WebshopEnvironment(data_dir=copy, use_small=False, index_dir=tmp_path / "cache").shop
    assert shop.nouns(shop.products[asins[4]]) == ("scarf", asins[4])
    (copy / "title_nouns.json").write_text(json.dumps(dict.fromkeys(asins, "red")))
    with pytest.raises(UserError, match=r"environment\.nouns: .* must have a list of nouns per product, got 'red'"):
        WebshopEnvironment(data_dir=copy, use_small=False, index_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("items_shuffle.json", "[{", "is damaged or incomplete"),
        ("items_shuffle.json", "[]", "has no product"),
        ("items_ins_v2.json", '{"B1": ', "must be JSON, got a damaged or incomplete file"),
    ],
)
def test_a_damaged_file_leaves_nothing_behind(files: Path, tmp_path: Path, name: str, text: str, said: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(files, copy)
    (copy / name).write_text(text)
    with pytest.raises(UserError, match=said):
        WebshopEnvironment(data_dir=copy, use_small=False, index_dir=tmp_path / "cache")
    assert not folders(tmp_path / "cache")


def test_the_files_are_streamed(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the pieces, and never a whole product file in memory."""
    monkeypatch.setattr(dataset, "CHUNK", 50)
    small, full = both(files, tmp_path)
    assert_same(small, full, searches=3)


def test_shops_in_memory_find_equal_products_in_the_order_of_codes_if_they_are_asked_to() -> None:
    from small_shop import product

    products = [product("B009"), product("B001")]
    prices = dict.fromkeys(("B009", "B001"), 1.0)
    nouns = noun_source("words", None)
    assert list(open_shop(products, prices, nouns).search("scarf")) == ["B009", "B001"]
    assert list(open_shop(products, prices, nouns, by_code=True).search("scarf")) == ["B001", "B009"]
