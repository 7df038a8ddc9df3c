"""The environment protocol, its checker, and the environments, each in its own package."""

from sdar.environments.base import Environment, EnvironmentPool, PastTurn, Projection
from sdar.environments.check import CheckReport, EnvironmentCheckError, check_env

__all__ = [
    "CheckReport",
    "Environment",
    "EnvironmentCheckError",
    "EnvironmentPool",
    "PastTurn",
    "Projection",
    "check_env",
]
