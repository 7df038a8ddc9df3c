"""What there is to know of each environment to warm-start a tiny model for it, one module per domain.

A module of the domain's name holds one subclass of :class:`sdar.warm_start.domain.Domain`, called ``DOMAIN``.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from sdar.errors import UserError
from sdar.warm_start.domain import Domain


def load_domain(name: str) -> Domain:
    """The domain of a name.

    Raises:
        UserError: nothing is known of it.
    """
    known = sorted(module.name for module in iter_modules(__path__))
    if name not in known:
        raise UserError(f"environment={name}: it has no demonstrations for a warm start; allowed: {', '.join(known)}")
    domain = import_module(f"{__name__}.{name}").DOMAIN()
    assert isinstance(domain, Domain)
    return domain
