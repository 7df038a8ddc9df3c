"""Settings of ``sdar serve``."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

from sdar.config.fields import AtLeastOne, Count, Temperature, settings

DEFAULT_PORT = 8080


@settings(frozen=True)
class ServeSettings:
    """Where a policy is served, and within which bounds.

    ``host``, ``port``   the address; port 0 takes a free one
    ``model_name``       what requests call the model; None: the name of the run, folder or model
    ``max_waiting``      requests that wait while another is answered; further ones are refused with status 429
    ``max_request_kb``   largest request, in 1,000 bytes
    ``kept_cache_mb``    most memory of keys and values that are kept for the next requests, in 1,000,000 bytes
    ``temperature``, ``top_p``, ``top_k``, ``max_tokens``  how a response is sampled where its request does not say so;
                         None: as in the evaluations of the run, else temperature 1, no filter, 512 tokens
    ``threads``          CPU threads of torch; None: as many as there are cores
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Ge(0), Le(65535)] = DEFAULT_PORT
    model_name: str | None = None
    max_waiting: Annotated[int, Ge(0), Le(10_000)] = 16
    max_request_kb: Annotated[int, Ge(1), Le(1_000_000)] = 4_000
    kept_cache_mb: Annotated[int, Ge(0), Le(10_000_000)] = 1_000
    temperature: Temperature | None = None
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    top_k: Count | None = None
    max_tokens: AtLeastOne | None = None
    threads: AtLeastOne | None = None
