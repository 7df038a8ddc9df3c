"""What the ALFWorld engines cost: CPU time per load, reset and step on the same games, and the memory of many episodes.

    python benchmarks/alfworld_engines.py [--data DATA] [--games 12] [--steps 30] [--episodes 512] [--out result.json]

Three engines play the same commands on the same games in one process, taking turns game by game, so that the ratios
are of one run whatever else the machine does: TextWorld's ``PddlEnv`` unchanged (stock), ours with its repeated work
kept (cached), and the native one. Games are generated (large ones with ``--large``), or those of a dataset folder,
packed or laid out. A step includes its text and the admissible commands. Needs ``sdar[textworld]``.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from alfworld_sources import StockEngine, Walk, games_of, generated_games

from sdar.environments.alfworld.game import Game
from sdar.environments.alfworld.native import NativeEngine
from sdar.environments.alfworld.textworld_engine import TextWorldEngine

OPERATIONS = ("load", "reset", "step")
ENGINES = ("stock", "cached", "native")
REPEATS = 5
"""How often the native engine does what takes it microseconds, so that the clock can tell."""


def main() -> None:
    """Measure and print; ``--out`` also writes JSON."""
    arguments = read_arguments()
    if arguments.memory_only:
        print(json.dumps(memory_of_episodes(chosen_games(arguments, arguments.episodes), arguments.episodes)))
        return
    games = chosen_games(arguments, arguments.games)
    seconds: dict[str, dict[str, list[float]]] = {engine: {name: [] for name in OPERATIONS} for engine in ENGINES}
    stock, cached, native = StockEngine(), TextWorldEngine(keep_games=1), NativeEngine()
    for number, game in enumerate(games):
        commands = measure_native(native, game, arguments.steps, seconds["native"])
        measure_stock(stock, game, commands, seconds["stock"])
        measure_cached(cached, game, commands, seconds["cached"])
        print(f"\r{number + 1}/{len(games)} games", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    result = {
        "games": "dataset" if arguments.data else "generated, large" if arguments.large else "generated",
        "num_games": len(games),
        "steps_per_game": arguments.steps,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_seconds": {e: {o: statistics.fmean(seconds[e][o]) for o in OPERATIONS} for e in ENGINES},
        "worst_native_load_s": max(seconds["native"]["load"]),
        "memory": memory_in_another_process(),
    }
    report(result)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="dataset folder, packed or laid out (left out: generated games)")
    parser.add_argument("--large", action="store_true", help="generated households as large as the dataset's")
    parser.add_argument("--games", type=int, default=12)
    parser.add_argument("--steps", type=int, default=30, help="commands per game")
    parser.add_argument("--episodes", type=int, default=512, help="concurrent episodes of the memory figure")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen_games(arguments: argparse.Namespace, count: int) -> list[Game]:
    """The first games of the source; a dataset is strided, so that all its task types are among them."""
    if arguments.data is None:
        return list(itertools.islice(generated_games(large=arguments.large), count))
    stride = max(1, 3500 // count)
    return list(itertools.islice(games_of(arguments.data), 0, count * stride, stride))


def cpu(function: Callable[..., Any], *values: Any) -> tuple[float, Any]:
    """CPU seconds of this process for a call, and what it returned."""
    began = time.process_time()
    returned = function(*values)
    return time.process_time() - began, returned


def measure_native(engine: NativeEngine, game: Game, steps: int, into: dict[str, list[float]]) -> list[str]:
    """The native engine's times; returns the commands of a walk for the others to repeat."""
    into["load"].append(statistics.median(cpu(engine.load, game)[0] for _ in range(REPEATS)))
    loaded = engine.load(game)
    into["reset"].append(cpu(lambda: [loaded.start() for _ in range(REPEATS)])[0] / REPEATS)
    state, reply = loaded.start()
    walk, commands = Walk(game.game_id), []
    for _ in range(steps):
        commands.append(walk.next_command(reply))
        reply = state.step(commands[-1])

    def replay() -> None:
        state = loaded.start()[0]
        for command in commands:
            state.step(command)

    elapsed, _ = cpu(lambda: [replay() for _ in range(REPEATS)])
    into["step"].append((elapsed / REPEATS - into["reset"][-1]) / steps)
    return commands


def measure_stock(engine: StockEngine, game: Game, commands: list[str], into: dict[str, list[float]]) -> None:
    """The unchanged engine's times."""
    loaded = engine.load(game)
    saved = sys.argv  # the translator overwrites it
    into["load"].append(cpu(loaded.environment.load, loaded.document)[0])
    into["reset"].append(cpu(loaded.environment.reset)[0])
    sys.argv = saved
    into["step"].append(cpu(lambda: [loaded.environment.step(command) for command in commands])[0] / len(commands))


def measure_cached(engine: TextWorldEngine, game: Game, commands: list[str], into: dict[str, list[float]]) -> None:
    """The times of our way to run the same engine."""
    elapsed, loaded = cpu(engine.load, game)
    into["load"].append(elapsed)
    elapsed, (state, _) = cpu(loaded.start)
    into["reset"].append(elapsed)
    into["step"].append(cpu(lambda: [state.step(command) for command in commands])[0] / len(commands))


def memory_in_another_process() -> dict[str, float]:
    """The memory figure from a fresh process with the same arguments, in which nothing else was allocated."""
    command = [sys.executable, os.fspath(Path(__file__).resolve()), *sys.argv[1:], "--memory-only"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def memory_of_episodes(games: list[Game], episodes: int) -> dict[str, float]:
    """Megabytes that native episodes add, all on different games and in groups of eight, five commands into each."""
    engine = NativeEngine()
    figures: dict[str, float] = {"episodes": episodes}
    engine.load(games[0]).start()
    for name, distinct in (("groups_of_8", max(1, episodes // 8)), ("all_different", episodes)):
        gc.collect()
        before = resident_megabytes()
        loaded = [engine.load(game) for game in games[:distinct]]
        states = []
        for number in range(episodes):
            state, reply = loaded[number % len(loaded)].start()
            for step in range(5):
                reply = state.step(reply.admissible[(number + step) % len(reply.admissible)])
            states.append((state, reply))
        gc.collect()
        figures[f"{name}_mb"] = resident_megabytes() - before
        if name == "all_different":
            break
        del loaded, states, state, reply
    figures["process_mb"] = resident_megabytes()
    return figures


def resident_megabytes() -> float:
    """Memory of this process now; its peak where the system does not tell."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    seconds = result["cpu_seconds"]
    print(
        f"{result['num_games']} games ({result['games']}), {result['steps_per_game']} commands each; CPU milliseconds"
    )
    print(f"{'':8}" + "".join(f"{engine:>12}" for engine in ENGINES) + f"{'stock/native':>15}{'cached/native':>15}")
    for name in OPERATIONS:
        stock, cached, native = (seconds[engine][name] for engine in ENGINES)
        cells = "".join(f"{1000 * value:12.3f}" for value in (stock, cached, native))
        print(f"{name:8}{cells}{stock / native:14.0f}x{cached / native:14.0f}x")
    print(f"native: {1 / seconds['native']['step']:,.0f} steps/s per core, slowest load", end=" ")
    print(f"{1000 * result['worst_native_load_s']:.1f} ms")
    memory = result["memory"]
    print(
        f"memory of {memory['episodes']:.0f} native episodes: {memory['groups_of_8_mb']:.0f} MB in groups of 8, "
        f"{memory['all_different_mb']:.0f} MB all on different games (whole process {memory['process_mb']:.0f} MB)"
    )


if __name__ == "__main__":
    main()
