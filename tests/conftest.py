"""Makes ``tests/`` importable (``from toys.training import ...``) and fixes what must be set before libraries load."""

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import pytest
from jaxtyping import install_import_hook

import toys.shapes  # noqa: F401 - named below

# Shapes in annotations are checked at every call of these modules. Before they are imported for the first time.
SHAPED = (
    "objective.tokens",
    "objective.kl",
    "objective.policy_gradient",
    "objective.full_vocabulary",
    "learning.batch",
)
install_import_hook([f"sdar.{name}" for name in SHAPED], "toys.shapes.checked")

# On a busy machine, how long an example takes says nothing.
hypothesis.settings.register_profile("sdar", deadline=None)
hypothesis.settings.load_profile("sdar")
# Two processes with several OpenMP threads each spin against one another; small tests gain nothing from threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that starts the tests in the background has this signal ignored, and all that they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# No test may depend on the network.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of one file stay in one process: what they share may take minutes to make."""
    from xdist.scheduler import LoadFileScheduling

    # In the order of the collection, see below; xdist's own order would begin with the files of most tests.
    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log) if config.getvalue("dist") == "load" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with whole runs come first: the last minutes of several processes are for files that are quickly done."""
    moving = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if moving:  # several processes would collect different tests, and pytest-xdist refuses that
        raise pytest.UsageError(f"tests must have the same name in every process, give ids=: {moving[0][:200]}")
    long = {item.path for item in items if item.get_closest_marker("e2e")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    """Imported modules stay: a tenth of the suite's time would go into looking for garbage among them."""
    gc.collect()
    gc.freeze()


_CACHE = TemporaryDirectory(prefix="sdar-cache-")
"""Of this process; indices and converted models are made once in it. One that is given (``SDAR_CACHE``) is kept."""
_CACHE_FOLDER = Path(os.environ.get("SDAR_CACHE", _CACHE.name)) / os.environ.get("PYTEST_XDIST_WORKER", "alone")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """No test sees the panels that another recorded, also in fixtures of a module."""
    shutil.rmtree(_CACHE_FOLDER / "panels", ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDAR_CACHE", str(_CACHE_FOLDER))
        return (yield)


@pytest.fixture(autouse=True)
def no_data_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests play what is built in, whatever the shell names; importing alfworld sets its variable in this process."""
    for name in ("ALFWORLD_DATA", "WEBSHOP_DATA"):
        monkeypatch.delenv(name, raising=False)
