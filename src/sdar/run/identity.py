"""What of its settings makes a run the same as another: which may go on with its checkpoint, which has its figures."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from sdar.config.plugins import is_own

IDENTITY_VERSION = 2
"""Of what :func:`config_hash` covers. Hashes of another version say nothing about equal settings."""

_MAY_CHANGE = frozenset(
    {"ckpt_path", "train", "run_dir", "logs_dir", "name", "threads", "rank_timeout_minutes"}
    | {"callbacks", "logger", "evaluation"}
)
_TRAINER_MAY_CHANGE = frozenset({"max_epochs", "max_time", "enable_progress_bar", "enable_model_summary"})
_ROLLOUT_MAY_CHANGE = frozenset({"environment_timeout_s", "max_error_fraction", "max_bad_iterations"})
_ROLLOUT_ADDED = {"overlap": False}
"""What earlier runs did that do not have the setting."""
_OPTIMIZER_MAY_CHANGE = frozenset({"max_bad_steps"})
"""How long errors and bad steps are borne with, not what is sampled."""
_VLLM_MAY_CHANGE = frozenset({"url", "weights_folder", "timeout_s"})
"""How a server is reached. Whether there is one counts."""
_SEARCH_ENGINE_MAY_CHANGE = frozenset(
    {"urls", "timeout_s", "attempts", "patience_s", "connections", "batch_size", "cache_dir", "device"}
)
"""How passages are reached, not which ones: a run may go on with a server that has moved."""
_CHANGES_NO_FIGURE = frozenset({"every_n_iterations", "baselines", "reuse_panels"})


def config_hash(settings: Mapping[str, Any]) -> str:
    """16 hex digits that identify what is trained: equal for runs of which one may continue the other.

    Leaves out what may change on resuming: the number of iterations (unless the learning rate falls until the last
    one), folders, the checkpoint, threads, evaluation, callbacks and loggers, how a search engine or a vLLM server is
    reached, and how errors are borne with. A class counts by its name and package, not by the module it stands in.
    """
    kept = {name: value for name, value in settings.items() if name not in _MAY_CHANGE}
    kept["trainer"] = {k: v for k, v in settings["trainer"].items() if k not in _TRAINER_MAY_CHANGE}
    if isinstance(rollout := settings.get("rollout"), Mapping):
        kept["rollout"] = {
            k: v for k, v in rollout.items() if k not in _ROLLOUT_MAY_CHANGE and (k, v) not in _ROLLOUT_ADDED.items()
        }
        if isinstance(vllm := rollout.get("vllm"), Mapping):
            served = {"served": True} if vllm.get("url") else {}
            kept["rollout"]["vllm"] = {k: v for k, v in vllm.items() if k not in _VLLM_MAY_CHANGE} | served
    if isinstance(optimizer := settings.get("optimizer"), Mapping):
        kept["optimizer"] = {k: v for k, v in optimizer.items() if k not in _OPTIMIZER_MAY_CHANGE}
        if optimizer.get("lr_schedule", "constant") != "constant":
            kept["iterations"] = settings["trainer"].get("max_epochs")
    engine = settings["environment"].get("search_engine")
    if isinstance(engine, Mapping):
        lasting = {k: v for k, v in engine.items() if k not in _SEARCH_ENGINE_MAY_CHANGE}
        kept["environment"] = {**settings["environment"], "search_engine": lasting}
    return _hash(kept)


def run_identity(settings: Mapping[str, Any]) -> str:
    """16 hex digits that are equal for runs that give the same figures: one may stand for the other.

    Beside what is trained (:func:`config_hash`) that is how long, and what it is judged on: iterations, time limit,
    and the panel's split, size, seed and sampling. How often the panel is played in between, and whether the agents
    without a model play it, and whether a record stands for it, is left out: none of it changes the figures before and
    after training. Which search servers were asked does.
    """
    judged = {name: value for name, value in settings["evaluation"].items() if name not in _CHANGES_NO_FIGURE}
    lasts = {name: settings["trainer"].get(name) for name in ("max_epochs", "max_time")}
    engine = settings["environment"].get("search_engine")
    # A run may go on with a server that has moved; that another server finds the same is not known.
    servers = [engine["urls"]] if isinstance(engine, Mapping) and engine.get("urls") else []
    return _hash([config_hash(settings), judged, lasts, *servers])


def _hash(values: Any) -> str:
    text = json.dumps(_without_modules(values), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


_NAME = re.compile(r"[A-Z]\w*(\.\w+)*$|\w+$")
"""A class, with what is named inside it, or a function."""


def _without_modules(value: Any) -> Any:
    """The value with every ``_target_`` of ours as package and name: our classes move between modules.

    A user's keep their whole names, of which two may end alike.
    """
    if isinstance(value, Mapping):
        return {
            name: f"{inner.partition('.')[0]}:{_NAME.search(inner)[0]}"  # type: ignore[index]
            if name == "_target_" and isinstance(inner, str) and is_own(inner) and _NAME.search(inner)
            else _without_modules(inner)
            for name, inner in value.items()
        }
    return [_without_modules(inner) for inner in value] if isinstance(value, list) else value
