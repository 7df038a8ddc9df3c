"""``algorithm=agent_opsd`` is its public code with the settings of its script for ALFWorld."""

from __future__ import annotations

import pytest

from sdar.objective.shaping import AgentOPSD
from toys.methods import method_settings
from toys.runs import settings_of

SCRIPT = {"weight": 0.5, "spread": 0.2, "gamma": 1.0, "statistics": "reference_code", "granularity": "turn"}
"""``mult_lambda``, ``mult_band``, ``belief_decay_gamma``, ``belief_mult`` with ``signed``, and ``granularity``."""


def test_the_file_says_what_the_script_says() -> None:
    method = method_settings("agent_opsd").method
    assert method.shaping == AgentOPSD(**SCRIPT)
    assert method.shaping == AgentOPSD()
    assert (method.objective.clip_low, method.objective.clip_high) == (0.2, 0.2)
    assert (method.objective.kl_coefficient, method.objective.kl_kind) == (0.01, "k3")
    assert method.objective.entropy_coefficient == 0.001
    assert method.objective.distillation_coefficient == 0.0


@pytest.mark.parametrize("iteration", [0, 20, 39])
def test_its_weight_stays_what_it_is(iteration: int) -> None:
    """``warmdown_steps=-1``."""
    method = method_settings("agent_opsd").method
    assert method.schedules.coefficient.factor(iteration) == 1.0


def test_the_first_form_is_an_option_and_the_one_of_the_comparison() -> None:
    first = settings_of("experiment=comparison/agent_opsd")["algorithm"]
    assert first["shaping"]["statistics"] == "group"
    assert (first["shaping"]["gamma"], first["objective"]["clip_high"]) == (0.95, 0.24)
    assert settings_of("algorithm=agent_opsd", "algorithm.shaping.statistics=group") != settings_of(
        "algorithm=agent_opsd"
    )
