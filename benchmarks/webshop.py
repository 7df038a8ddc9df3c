"""How fast WebShop steps and searches, and how much memory it holds.

python benchmarks/webshop.py                                  # the built-in catalogue
python benchmarks/webshop.py --data FOLDER [--full]           # the original's 1,000 products, or all
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

from sdar.environments.webshop.environment import WebshopEnvironment
from sdar.environments.webshop.search_index import SearchIndex
from sdar.randomness import keyed_generator

EPISODES = 400


def resident_mb() -> float:
    """Memory this process holds now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def walk(environment: WebshopEnvironment, limit: int) -> tuple[int, int, float]:
    """Random walks: a search, then clicks on anything; steps, searches and CPU seconds."""
    tasks = environment.tasks("train")
    pool = environment.open_pool()
    steps = searches = 0
    started = time.process_time()
    for number in range(EPISODES):
        (view,) = pool.reset([tasks[number % len(tasks)]])
        for turn in range(limit):
            rng = keyed_generator(0, "benchmark", number, turn)
            action = view.actions[int(rng.integers(len(view.actions)))]
            outcome = pool.step({0: action})[0]
            steps += 1
            searches += action.startswith("search[")
            view = outcome.observation
            if outcome.done:
                break
    return steps, searches, time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the original's files")
    parser.add_argument("--full", action="store_true", help="all products rather than the first 1,000")
    options = parser.parse_args()
    before = resident_mb()
    started = time.perf_counter()
    environment = WebshopEnvironment(data_dir=options.data, use_small=not options.full)
    loaded = time.perf_counter() - started
    products = len(environment.shop.products)
    goals = sum(len(environment.tasks(split)) for split in environment.splits())
    print(f"{products} products, {goals} goals: ready in {loaded:.2f} s, {resident_mb() - before:.0f} MB more")
    walk(environment, 5)  # warm
    steps, searches, seconds = walk(environment, 15)
    print(f"{steps / seconds:,.0f} steps/s of CPU time ({steps} steps, {searches} of them searches)")
    texts = [product.contents for product in environment.shop.products.values()]
    started = time.process_time()
    index = SearchIndex(texts)
    indexing = time.process_time() - started
    queries = [task.description for task in environment.tasks("train")[:1000]]
    started = time.process_time()
    for query in queries:
        index.search(query, 50)
    search = (time.process_time() - started) / len(queries)
    print(f"index {indexing:.2f} s; a search for a whole instruction {search * 1e3:.2f} ms")
    print(f"process: {resident_mb():.0f} MB, at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
