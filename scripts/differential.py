"""Hold two engines against each other: every text, every admissible command in its order, every outcome.

By default the native engine against TextWorld's; ``--stock`` compares TextWorld's engine as this project runs it (with
caches) with the unchanged one. Each game is walked with commands of every kind, malformed ones included; then its
walkthrough is played in a fresh episode, and must win. One JSON line per game; games that are in the output already
are left out, so that a stopped run continues.

    python scripts/differential.py --data DATA --out results.jsonl --shard 0/8 --games 200 --cpu-minutes 2
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from alfworld_sources import StockEngine, Walk, first_difference, games_of, packed_rules

from sdar.environments.alfworld.engine import Engine, GameError
from sdar.environments.alfworld.game import Game


def main() -> int:
    """Compare; exit code 1 when two engines differ."""
    arguments = read_arguments()
    left, right = engines(arguments)
    done = finished_games(arguments.out)
    number, shards = (int(part) for part in arguments.shard.split("/"))
    chosen = itertools.islice(games_of(arguments.data, arguments.seed), number, None, shards)
    chosen = itertools.islice(chosen, 0, None, arguments.every)
    different = played = 0
    with arguments.out.open("a") as out:
        for game in itertools.islice(chosen, arguments.games):
            if game.game_id in done:
                continue
            if time.process_time() > 60 * arguments.cpu_minutes:
                print("out of time; run again to continue")
                break
            result = compare(game, left, right, arguments.commands)
            out.write(json.dumps(result) + "\n")
            out.flush()
            played += 1
            different += result["difference"] is not None
            if result["difference"] is not None:
                print(f"{game.game_id}: {result['difference']}")
    print(f"{played} games played, {different} different, {len(done)} done before")
    return 1 if different else 0


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="dataset folder, packed or laid out (left out: generated games)")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; appended to")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th game, from the i-th")
    parser.add_argument("--games", type=int, default=100, help="at most this many games of the shard")
    parser.add_argument("--every", type=int, default=1, help="only every so many games of the shard")
    parser.add_argument("--commands", type=int, default=50, help="commands of each walk")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator")
    parser.add_argument("--cpu-minutes", type=float, default=2.0, help="stop after so much CPU time")
    parser.add_argument("--stock", action="store_true", help="TextWorld with caches against TextWorld unchanged")
    return parser.parse_args()


def engines(arguments: argparse.Namespace) -> tuple[Engine, Engine]:
    """The two to compare. Stock plays packed games by the rules that came with them."""
    from sdar.environments.alfworld.textworld_engine import TextWorldEngine

    if not arguments.stock:
        from sdar.environments.alfworld.native import NativeEngine

        return NativeEngine(), TextWorldEngine(keep_games=2)
    folders = [path for path in (arguments.data, arguments.data and arguments.data / "alfworld") if path]
    packed = [path for path in folders if (path / "domain.pddl").is_file()]
    return TextWorldEngine(keep_games=2), StockEngine(*packed_rules(packed[0])) if packed else StockEngine()


def finished_games(out: Path) -> set[str]:
    """Games an earlier run has written."""
    if not out.is_file():
        return set()
    return {json.loads(line)["game_id"] for line in out.read_text().splitlines()}


def compare(game: Game, left: Engine, right: Engine, num_commands: int) -> dict[str, Any]:
    """Play one game on both engines; the first difference ends it."""
    result: dict[str, Any] = {"game_id": game.game_id, "steps": 0, "won": False, "difference": None}
    clocks = [0.0, 0.0]

    def timed(side: int, function: Any, *values: Any) -> Any:
        start = time.process_time()
        try:
            return function(*values)
        finally:
            clocks[side] += time.process_time() - start

    def step(states: tuple[Any, Any], command: str) -> Any:
        replies = [timed(side, states[side].step, command) for side in (0, 1)]
        result["steps"] += 1
        difference = first_difference(*replies)
        if difference is not None:
            raise DifferenceFoundError(f"after {command!r} (step {result['steps']}): {difference}")
        return replies[0]

    def start(loaded: tuple[Any, Any]) -> tuple[tuple[Any, Any], Any]:
        (left_state, left_reply), (right_state, right_reply) = (timed(side, loaded[side].start) for side in (0, 1))
        difference = first_difference(left_reply, right_reply)
        if difference is not None:
            raise DifferenceFoundError(f"at the start: {difference}")
        return (left_state, right_state), left_reply

    try:
        loaded = (timed(0, left.load, game), timed(1, right.load, game))
        states, reply = start(loaded)
        walk = Walk(game.game_id)
        for _ in range(num_commands):
            reply = step(states, walk.next_command(reply))
        states, reply = start(loaded)
        for command in game.walkthrough:
            reply = step(states, command)
        result["won"] = reply.won
        if game.walkthrough and not reply.won:
            raise DifferenceFoundError("the walkthrough does not win")
    except (DifferenceFoundError, GameError) as error:
        result["difference"] = str(error)
    result["cpu_ms"] = [round(1000 * clock, 1) for clock in clocks]
    return result


class DifferenceFoundError(Exception):
    """Two engines disagree; the message says where."""


if __name__ == "__main__":
    sys.exit(main())
