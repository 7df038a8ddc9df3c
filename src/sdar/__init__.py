"""Self-Distilled Agentic Reinforcement Learning.

A notebook needs few names, which are imported when they are first used::

    settings = sdar.compose(["environment=webshop", "trainer.max_epochs=2"])
    assembly = sdar.assemble(settings)
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdar.environments.make import make
    from sdar.learning.datamodule import RolloutDataModule
    from sdar.learning.method import Method
    from sdar.learning.module import SDARModule
    from sdar.run.assembly import assemble
    from sdar.run.validate import compose

__all__ = ["Method", "RolloutDataModule", "SDARModule", "__version__", "assemble", "compose", "make"]

_HOMES = {
    "Method": "sdar.learning.method",
    "RolloutDataModule": "sdar.learning.datamodule",
    "SDARModule": "sdar.learning.module",
    "assemble": "sdar.run.assembly",
    "compose": "sdar.run.validate",
    "make": "sdar.environments.make",
}

# Modules that were commands before there was one front door: ``python -m sdar.play`` goes on working.
__path__.append(str(Path(__file__).parent / "commands" / "aliases"))


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # slow, and seldom asked for

        return version("sdar")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sdar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
