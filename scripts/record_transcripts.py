"""Record what the original engine says to games, as golden files that prove play where it is not installed.

    python scripts/record_transcripts.py --games 12 --out tests/environments/alfworld/golden

Each game gets two episodes: a walk with commands of every kind, malformed ones included, and its walkthrough.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from alfworld_sources import StockEngine, Walk, games_of, generated_games
from golden import Transcript, write_golden

from sdar.environments.alfworld.game import Game


def main() -> None:
    """Record and write, one file per game."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=12)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--commands", type=int, default=40, help="commands of each walk")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator")
    parser.add_argument("--large", type=int, default=0, help="so many further games as large as the dataset's")
    parser.add_argument("--data", type=Path, help="games of this dataset folder instead of generated ones")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    games = list(itertools.islice(games_of(arguments.data, arguments.seed), arguments.games))
    games += itertools.islice(generated_games(arguments.seed + 1, large=True), arguments.large)
    engine = StockEngine()
    versions = {name: version(name) for name in ("alfworld", "textworld", "fast-downward-textworld")}
    for number, game in enumerate(games):
        path = arguments.out / f"{number:02d}-{game.task_type}.json"
        episodes = record(engine, game, arguments.commands)
        write_golden(path, game, episodes, versions)
        print(f"{path}: {sum(len(episode) for episode in episodes)} steps")


def record(engine: StockEngine, game: Game, num_commands: int) -> list[Transcript]:
    """A walk and the walkthrough; ValueError when the walkthrough does not win."""
    loaded = engine.load(game)
    walk = Walk(game.game_id)
    state, reply = loaded.start()
    walked: Transcript = [(None, reply)]
    for _ in range(num_commands):
        command = walk.next_command(reply)
        reply = state.step(command)
        walked.append((command, reply))
    state, reply = loaded.start()
    solved: Transcript = [(None, reply)]
    for command in game.walkthrough:
        solved.append((command, state.step(command)))
    if not solved[-1][1].won:
        raise ValueError(f"the walkthrough of {game.game_id} does not win")
    return [walked, solved]


if __name__ == "__main__":
    main()
