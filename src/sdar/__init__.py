"""Self-Distilled Agentic Reinforcement Learning."""

from pathlib import Path

# Modules that were commands before there was one front door: ``python -m sdar.play`` goes on working.
__path__.append(str(Path(__file__).parent / "commands" / "aliases"))
