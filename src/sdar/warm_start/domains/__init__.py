"""The domains of warm starts, one module per environment.

The module with the domain's name has one subclass of :class:`sdar.warm_start.domain.Domain`, as ``DOMAIN``.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from sdar.errors import UserError
from sdar.warm_start.domain import Domain


def load_domain(name: str) -> Domain:
    """The domain with this name.

    Raises:
        UserError: there is no such domain.
    """
    known = sorted(module.name for module in iter_modules(__path__))
    if name not in known:
        raise UserError(f"environment must be one of {', '.join(known)}, got {name}")
    domain = import_module(f"{__name__}.{name}").DOMAIN()
    assert isinstance(domain, Domain)
    return domain
