"""The original's files: what is read, what is skipped, and what is refused in one sentence."""

import json
import os
from pathlib import Path

import pytest
from small_shop import record

from sdar.environments.base import training_tasks
from sdar.environments.webshop import dataset, nouns
from sdar.environments.webshop.dataset import read_products
from sdar.environments.webshop.environment import WebshopEnvironment
from sdar.environments.webshop.goals import make_goals
from sdar.environments.webshop.nouns import noun_source
from sdar.errors import UserError


def write(folder, records, attributes=None, items="items_shuffle_1000.json", text=None):
    (folder / items).write_text(json.dumps(records) if text is None else text, encoding="utf-8")
    name = "items_ins_v2_1000.json" if "1000" in items else "items_ins_v2.json"
    (folder / name).write_text(json.dumps(attributes or {}), encoding="utf-8")
    return folder


def read(folder, **settings):
    return read_products(folder, **({"use_small": True, "human_goals": False} | settings))


def refused(folder, **settings):
    with pytest.raises(UserError) as caught:
        read(folder, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_fields_are_read_as_the_original_reads_them(tmp_path):
    attributes = {"B001": {"attributes": ["a"], "instruction": "Find me x", "instruction_attributes": ["a"]}}
    (product,) = read(write(tmp_path, [record()], attributes))
    assert product.query == "scarves"
    assert product.options == {"color": ("red", "blue | grey"), "size": ("small",)}
    assert product.contents == "red wool scarf keeps warm. soft wool. color: red, blue | grey, and size: small"
    assert (product.attributes, product.instruction) == (("a",), "Find me x")


@pytest.mark.parametrize(
    ("pricing", "prices", "tag"),
    [
        ("$20.00", (20.0,), "$20.0"),
        ("$1,234.50", (1234.5,), "$1234.5"),
        ("$3.50 - $7", (3.5, 7.0), "$3.5 to $7.0"),
        ("$9 - $5 - $1", (9.0, 5.0), "$9.0 to $5.0"),
        ("", (100.0,), "$100.0"),
        (None, (100.0,), "$100.0"),
        ("20", (100.0,), "$100.0"),
        ("$", (100.0,), "$100.0"),
        ("$1.2.3", (100.0,), "$100.0"),
    ],
)
def test_prices(tmp_path, pricing, prices, tag):
    (product,) = read(write(tmp_path, [record(pricing=pricing)]))
    assert (product.pricing, product.price_tag) == (prices, tag)


def test_products_without_a_usable_code_and_repeated_ones_are_left_out(tmp_path):
    records = [record("nan"), record("B0123456789"), record("B001"), record("B001", name="again")]
    assert [product.title for product in read(write(tmp_path, records))] == ["Red wool scarf"]


def test_options_may_be_missing_or_empty(tmp_path):
    (product,) = read(write(tmp_path, [record(customization_options={"Color": None, "Size": []})]))
    assert product.options == {"size": ()}
    assert product.attributes == ("DUMMY_ATTR",)


def test_goals_of_people(tmp_path):
    order = {"instruction": "I want a scarf.", "instruction_attributes": ["soft"], "instruction_options": ["red"]}
    empty = order | {"instruction_attributes": []}
    (tmp_path / "items_human_ins.json").write_text(json.dumps({"B001": [order, empty]}))
    products = read(write(tmp_path, [record()]), human_goals=True)
    import random

    (goal,) = make_goals(products, {"B001": 20.0}, random.Random(0), human=True)
    assert goal.options == ("red",)
    assert goal.instruction.startswith("I want a scarf, and price lower than ")


ORDER = {"instruction": "Find it", "instruction_attributes": ["soft"], "instruction_options": ["red"]}


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        ([ORDER | {"instruction": 3}], "instruction must be a string, got 3"),
        ([{"instruction": "x"}], "instruction_attributes must be a list of strings, got None"),
        ([ORDER | {"instruction_options": [4]}], "instruction_options must be a list of strings, got [4]"),
        (["x"], "must be a list of mappings"),
        ({"a": 1}, "must be a list of mappings"),
        (7, "must be a list of mappings"),
    ],
)
def test_instructions_by_people_that_are_none_are_refused(tmp_path, orders, said):
    (tmp_path / "items_human_ins.json").write_text(json.dumps({"B001": orders}))
    assert said in refused(write(tmp_path, [record()]), human_goals=True)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ([], "its entry of attributes must be a mapping, got []"),
        ({"attributes": "soft"}, "attributes must be a list of strings, got 'soft'"),
        ({"attributes": None}, "attributes must be a list of strings, got None"),
        ({"instruction": ["x"]}, "instruction must be a string, got ['x']"),
        (
            {"instruction": "x", "instruction_attributes": [1]},
            "instruction_attributes must be a list of strings, got [1]",
        ),
    ],
)
def test_attributes_that_are_none_are_refused(tmp_path, entry, said):
    assert said in refused(write(tmp_path, [record()], {"B001": entry}))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    write(tmp_path, [record()])
    (tmp_path / "items_shuffle_1000.json").write_bytes(b"\x1f\x8b\x08\xff")
    assert "items_shuffle_1000.json must be UTF-8 text, got gzip data" in refused(tmp_path)
    (tmp_path / "items_shuffle_1000.json").write_bytes(json.dumps([record()]).encode()[:-1] + b" \xff")
    assert "items_shuffle_1000.json must be UTF-8 text, got other bytes" in refused(tmp_path)


def test_damage_in_a_long_file_is_told_without_reading_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "CHUNK", 64)
    monkeypatch.setattr(dataset, "LONGEST", 1024)
    write(tmp_path, [], text='[{"asin": "B1", name},' + json.dumps([record()] * 500)[1:])
    with (tmp_path / "items_shuffle_1000.json").open("ab") as file:
        file.write(b"\xff")  # reading this far would give another error
    assert "is damaged" in refused(tmp_path)


def test_a_long_file_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("sdar.environments.webshop.dataset.CHUNK", 7)
    records = [record(f"B{number}", name=f'scarf {{["{number} ☕') for number in range(9)]
    text = json.dumps(records, indent=1, ensure_ascii=False)
    assert len(read(write(tmp_path, [], text=text))) == 9


def test_missing_folders_and_files_are_named(tmp_path):
    assert "must be a directory" in refused(tmp_path / "nothing")
    assert "must contain items_shuffle_1000.json and items_ins_v2_1000.json" in refused(tmp_path)
    write(tmp_path, [record()], items="items_shuffle.json")
    assert "environment.use_small=false" in refused(tmp_path)
    write(tmp_path, [record()])
    assert "must contain items_human_ins.json" in refused(tmp_path, human_goals=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps([record(), record("B002")])[:-40], "damaged or incomplete"),
        ("[", "damaged or incomplete"),
        ("", "must be a list of products"),
        ("version https://git-lfs.github.com/spec/v1", "must be a list of products"),
        ("[]", "has no product"),
        ("[3]", "must contain only products, got 3"),
        ('[{"asin": "B1"}]', "product 0: name must be a string, got None"),
        (json.dumps([record(asin=3)]), "product 0: asin must be a string, got 3"),
        (json.dumps([record(customization_options={"a": [{"x": 1}]})]), "without a value"),
        (json.dumps([record(customization_options="red")]), "must be a mapping, got 'red'"),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, said):
    message = refused(write(tmp_path, [], text=text))
    assert said in message
    assert "items_shuffle_1000.json" in message


def test_damaged_attributes_are_refused(tmp_path):
    write(tmp_path, [record()])
    (tmp_path / "items_ins_v2_1000.json").write_text('{"B001": {"attr')
    assert "items_ins_v2_1000.json must be JSON, got a damaged or incomplete file" in refused(tmp_path)
    (tmp_path / "items_ins_v2_1000.json").write_text("[]")
    assert "must be a mapping of ASINs" in refused(tmp_path)


DEEP = "[" * 100_000
NO_DATA = [
    (
        "items_shuffle_1000.json",
        lambda path: path.write_text(f'[{{"asin": {DEEP}'),
        "no file of products (it is nested too",
    ),
    (
        "items_shuffle_1000.json",
        lambda path: path.write_text(f"[{'9' * 5000}]"),
        "no file of products (a number has too",
    ),
    ("items_shuffle_1000.json", os.mkfifo, "must be a regular file, got a named pipe"),
    ("items_shuffle_1000.json", Path.mkdir, "must be a regular file, got a directory"),
    ("items_ins_v2_1000.json", lambda path: path.write_text(f'{{"B001": {DEEP}'), "(it is nested too deeply)"),
    ("items_ins_v2_1000.json", lambda path: path.symlink_to("/dev/zero"), "must be a regular file, got a device"),
    ("items_human_ins.json", lambda path: path.symlink_to(path), "cannot be read (Too many levels of symbolic links)"),
]


@pytest.mark.parametrize(("name", "make", "said"), NO_DATA)
def test_files_that_block_or_never_end_are_refused(tmp_path, name, make, said):
    write(tmp_path, [record()])
    (tmp_path / "items_human_ins.json").write_text("{}")
    (tmp_path / name).unlink()
    make(tmp_path / name)
    message = refused(tmp_path, human_goals=True)
    assert said in message
    assert name in message
    assert len(message) < 400


@pytest.mark.parametrize("nouns", ["[]", DEEP, '{"B001": "red"}'])
def test_a_file_of_nouns_that_is_none_is_refused(tmp_path, nouns):
    (product,) = read(write(tmp_path, [record()]))
    (tmp_path / "title_nouns.json").write_text(nouns)
    with pytest.raises(UserError, match=r"environment\.nouns: .*title_nouns\.json must (be|have)"):
        noun_source("auto", tmp_path)(product)


def test_few_goals_are_enough_to_evaluate_and_too_few_to_train(tmp_path):
    attributes = {"B001": {"attributes": ["a"], "instruction": "Find me x", "instruction_attributes": ["a"]}}
    environment = WebshopEnvironment(data_dir=write(tmp_path, [record()], attributes))
    assert environment.splits() == ("test",)
    assert training_tasks(environment, needed=False) == ()
    with pytest.raises(UserError, match="training begins with the 1501st"):
        training_tasks(environment)
    with pytest.raises(UserError, match="must have products with goals"):
        WebshopEnvironment(data_dir=write(tmp_path, [record()]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: folder"),
        (["folder", "--all"], "unrecognized arguments: --all"),
        (["/no/such/folder"], "environment.data_dir=/no/such/folder must be a directory, got nothing of that name"),
    ],
)
def test_the_command_for_nouns_tells_mistakes_in_one_sentence(arguments, said, capsys):
    assert nouns.main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {said}")
    assert told.count("\n") == 1


def test_nouns_of_other_products_are_refused(tmp_path):
    write(tmp_path, [record()])
    (product,) = read(tmp_path)
    with pytest.raises(UserError, match="needs a file title_nouns"):
        noun_source("file", tmp_path)
    with pytest.raises(UserError, match="source must be 'auto' or 'file' or 'spacy' or 'words', got 'guess'"):
        noun_source("guess", tmp_path)
    (tmp_path / "title_nouns.json").write_text("{")
    with pytest.raises(UserError, match=r"environment\.nouns: .* must be JSON"):
        noun_source("file", tmp_path)
    (tmp_path / "title_nouns.json").write_text('{"B002": ["hat"]}')
    with pytest.raises(UserError, match="must have an entry for every product, got none for B001"):
        noun_source("auto", tmp_path)(product)
    (tmp_path / "title_nouns.json").write_text('{"B001": ["scarf"]}')
    assert noun_source("auto", tmp_path)(product) == ("scarf",)


ATTRIBUTES = {"B001": {"attributes": ["a"], "instruction": "Find me x", "instruction_attributes": ["a"]}}
SMALL, FULL, OTHER = "title_nouns_1000.json", "title_nouns.json", "title_nouns_by_me.json"


def of_both(folder):
    """The same products as the small set and as the full one."""
    for items in ("items_shuffle_1000.json", "items_shuffle.json"):
        write(folder, [record("B001"), record("B002")], ATTRIBUTES, items)
    return folder


def opened(folder, **settings):
    return WebshopEnvironment(data_dir=folder, index_dir=folder / "cache", **settings)


def complete(noun):
    return {"B001": [noun], "B002": [noun]}


@pytest.mark.parametrize("source", ["auto", "file"])
@pytest.mark.parametrize(
    ("there", "small", "full"),
    [
        ([SMALL, FULL, OTHER], SMALL, FULL),
        ([SMALL, FULL], SMALL, FULL),
        ([SMALL, OTHER], SMALL, OTHER),
        ([FULL, OTHER], FULL, FULL),
        ([OTHER], OTHER, OTHER),
        ([SMALL], SMALL, SMALL),
    ],
)
def test_the_nouns_are_those_of_the_set_of_products(tmp_path, source, there, small, full):
    of_both(tmp_path)
    for name in there:
        (tmp_path / name).write_text(json.dumps(complete(name)))
    for use_small, expected in ((True, small), (False, full)):
        shop = opened(tmp_path, nouns=source, use_small=use_small).shop
        assert [shop.nouns(product) for product in shop.products.values()] == [(expected,)] * 2


@pytest.mark.parametrize("source", ["auto", "file"])
@pytest.mark.parametrize(("use_small", "flag"), [(True, ""), (False, " --full")])
@pytest.mark.parametrize("name", [SMALL, FULL, OTHER])
def test_a_file_of_nouns_that_lacks_a_product_is_refused_at_the_start(tmp_path, source, use_small, flag, name):
    of_both(tmp_path)
    (tmp_path / name).write_text('{"B001": ["scarf"], "B003": ["hat"]}')
    with pytest.raises(UserError) as caught:
        opened(tmp_path, nouns=source, use_small=use_small)
    assert str(caught.value) == (
        f"environment.nouns: {tmp_path / name} must have an entry for every product, got none for B002; write a file "
        f"for these products with python -m sdar.environments.webshop.nouns {tmp_path}{flag}, or set "
        "environment.nouns=spacy or words"
    )
    assert opened(tmp_path, nouns="words", use_small=use_small).tasks("test")
