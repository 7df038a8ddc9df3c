"""Environments whose episodes fail, and that keep to the protocol otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sdar.environments.check import EnvironmentCheckError


def checked(passes: Callable[[], bool], *, fails: bool) -> None:
    """The check passes; or where episodes fail, that is told, and is all that is told."""
    if not fails:
        assert passes()
        return
    with pytest.raises(EnvironmentCheckError) as found:
        passes()
    (problem,) = found.value.problems
    assert "episodes cannot start; the first is" in problem or "episodes end by an error; the first is" in problem
