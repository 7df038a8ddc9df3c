"""How fast WebShop steps and searches, how long it takes to be ready, and how much memory it holds.

python benchmarks/webshop.py                                  # the built-in catalogue
python benchmarks/webshop.py --data FOLDER [--full]           # the original's 1,000 products, or all
python benchmarks/webshop.py --simulate 1000000 --into FOLDER [--data FOLDER]

--simulate writes files in the original's format with so many products, and measures on them how long the catalogue on
disk takes to be made, and then, in a new process, to be opened and played. The products are made of those of --data (or
of the built-in ones): titles and descriptions of one are mixed with words of others, so that words are as frequent as
in the templates, and every third product has a code that no other has, so that the vocabulary grows as in a real shop.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdar.environments.webshop.catalogue import CatalogueSettings, generate_records
from sdar.environments.webshop.environment import WebshopEnvironment
from sdar.randomness import keyed_generator

EPISODES = 400
Record = tuple[dict[str, Any], dict[str, Any]]


def resident_mb() -> float:
    """Memory this process holds now, in MB, mapped files included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def walk(environment: WebshopEnvironment, limit: int, first: int = 0) -> tuple[int, int, float, float]:
    """Random walks: a search, then clicks on anything; steps, searches, CPU seconds and seconds."""
    tasks = environment.tasks("train")
    pool = environment.open_pool()
    steps = searches = 0
    chosen = [tasks[((first + number) * 7919) % len(tasks)] for number in range(EPISODES)]
    started, began = time.process_time(), time.perf_counter()
    for number, task in enumerate(chosen):
        (view,) = pool.reset([task])
        for turn in range(limit):
            rng = keyed_generator(0, "benchmark", number, turn)
            action = view.actions[int(rng.integers(len(view.actions)))]
            outcome = pool.step({0: action})[0]
            steps += 1
            searches += action.startswith("search[")
            view = outcome.observation
            if outcome.done:
                break
    return steps, searches, time.process_time() - started, time.perf_counter() - began


def measure(data: Path | None, *, full: bool, index_dir: Path | None) -> None:
    """Open an environment and play it."""
    before = resident_mb()
    started = time.perf_counter()
    environment = WebshopEnvironment(data_dir=data, use_small=not full, index_dir=index_dir)
    loaded = time.perf_counter() - started
    products = len(environment.shop.products)
    goals = sum(len(environment.tasks(split)) for split in environment.splits())
    print(f"{products:,} products, {goals:,} goals: ready in {loaded:.2f} s, {resident_mb() - before:,.0f} MB more")
    walk(environment, 5)  # warm
    steps, searches, cpu, seconds = walk(environment, 15, first=EPISODES)
    print(
        f"{steps / cpu:,.0f} steps/s of CPU time, {steps / seconds:,.0f} of the clock's ({steps} steps, {searches} of "
        "them searches)"
    )
    tasks = environment.tasks("train")
    queries = [tasks[(number * 104729) % len(tasks)].description.lower() for number in range(1000)]
    started = time.process_time()
    for query in queries:
        environment.shop.search(query)
    print(f"a search for a whole instruction {(time.process_time() - started) / len(queries) * 1e3:.2f} ms")
    print(
        f"process: {resident_mb():,.0f} MB, at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB"
    )


def templates(data: Path | None) -> list[Record]:
    """Records of products with their attributes: the original's small set, or the built-in ones with longer texts."""
    if data is not None:
        attributes = json.loads((data / "items_ins_v2_1000.json").read_text(encoding="utf-8"))
        records = json.loads((data / "items_shuffle_1000.json").read_text(encoding="utf-8"))
        return [(record, attributes.get(record["asin"], {})) for record in records]
    rng = random.Random(0)
    words = [f"w{number}x" for number in range(20_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    made = []
    for record, known in generate_records(CatalogueSettings()):
        text = " ".join(rng.choices(words, weights, k=90))
        made.append((record | {"full_description": f"{record['full_description']} {text}"}, known))
    return made


def simulated(count: int, data: Path | None) -> Iterator[Record]:
    """``count`` products."""
    known = templates(data)
    rng = random.Random(1)
    pool = [word for record, _ in known for word in f"{record['name']} {record['full_description']}".split()]
    for number in range(count):
        record, attributes = rng.choice(known)
        texts = {}
        for field, kept in (("name", 0.6), ("full_description", 0.8)):
            words = record[field].split()
            draws = rng.choices(pool, k=len(words))
            texts[field] = " ".join(
                word if rng.random() < kept else other for word, other in zip(words, draws, strict=True)
            )
        if number % 3 == 0:
            texts["name"] += f" {rng.getrandbits(40):x}"
        yield {**record, **texts, "asin": f"B{number:09d}", "pricing": f"${rng.uniform(5, 900):.2f}"}, attributes


def write(folder: Path, count: int, data: Path | None) -> None:
    """The two files of ``count`` simulated products."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "items_shuffle.json").open("w") as items, (folder / "items_ins_v2.json").open("w") as attributes:
        before = "[", "{"
        for record, known in simulated(count, data):
            items.write(before[0] + json.dumps(record))
            attributes.write(f"{before[1]}{json.dumps(record['asin'])}: {json.dumps(known)}")
            before = ", ", ", "
        items.write("]")
        attributes.write("}")


def simulate(count: int, folder: Path, data: Path | None) -> None:
    """Write products, then measure twice, each time in a new process: first the catalogue is made, then opened."""
    started = time.perf_counter()
    write(folder, count, data)
    size = sum(file.stat().st_size for file in folder.glob("items_*.json"))
    print(f"wrote {size / 1e9:.2f} GB in {time.perf_counter() - started:.0f} s", flush=True)
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    again = [sys.executable, __file__, "--data", str(folder), "--full", "--index-dir", str(cache)]
    for title in ("made", "opened"):
        print(f"{title}:", flush=True)
        subprocess.run(again, check=True)
    made = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    print(f"the catalogue on disk has {made / 1e9:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the original's files")
    parser.add_argument("--full", action="store_true", help="all products rather than the first 1,000")
    parser.add_argument("--index-dir", type=Path, help="folder that keeps the catalogue of all products")
    parser.add_argument("--simulate", type=int, metavar="N", help="measure with N simulated products")
    parser.add_argument("--into", type=Path, help="folder for their files, about 4 GB for a million, and the catalogue")
    options = parser.parse_args()
    if options.simulate is None:
        measure(options.data, full=options.full, index_dir=options.index_dir)
    elif options.into is None:
        parser.error("--simulate needs --into")
    else:
        simulate(options.simulate, options.into, options.data)


if __name__ == "__main__":
    main()
