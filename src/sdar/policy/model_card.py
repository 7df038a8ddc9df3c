"""The model card of an exported model: front matter as the Hugging Face Hub reads it, and a page for people.

What is not known is left out. Source of the fields: the Hub's documentation, "Model Cards" and its model card
specification (``model-index``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

FILE_NAME = "README.md"
_MOST_TOKENS = 512
"""Of the response in the program, where the limit of the panel is not known."""

_PAGE = """\
---
{front_matter}---

# {name}

A language-model agent trained by reinforcement learning with sdar, an independent implementation of
[Self-Distilled Agentic Reinforcement Learning](https://arxiv.org/abs/2605.15155). Written by `sdar export`.

{about}
{results}## Usage

```python
{usage}```

{prompts}
{training}"""

_USAGE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

path = "."  # the folder with this file, or the model's name on the Hub
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
messages = [{{"role": "user", "content": "..."}}]  # the environment's text; then responses and answers in turn
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"{template_options}
)
output = model.generate(**inputs, {sampling})
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""

_PROMPTS = """\
Prompts are those of the environment in sdar, rendered by the chat template: `sdar play --policy FOLDER` shows them, and
`sdar serve FOLDER` serves the model with the sampler that it was trained with.
"""


@dataclass(frozen=True)
class Figure:
    """A row of the panel's table.

    ``agent``    whose it is, and ``skills`` whether skills were in its prompts
    ``n``        episodes that no error ended, of which ``successes`` solved their task; ``errors`` are the others
    ``interval`` 95 % interval of the success rate, in [0, 1]; None: not known
    """

    agent: str
    skills: bool
    successes: int
    n: int
    interval: tuple[float, float] | None = None
    errors: int = 0


@dataclass(frozen=True)
class Panel:
    """The fixed tasks that the figures are of. ``seed`` is that of the panel and of its sampled tokens."""

    split: str | None = None
    tasks: int | None = None
    content_hash: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class CardFacts:
    """All that a card says. Texts are one printable line each.

    ``name``        of the exported model
    ``base_model``  id on the Hub of the model that training began with
    ``license``     its identifier on the Hub
    ``domain``      name of the environment
    ``about``       rows of the first table: what -> value
    ``model``       figures of this model, and ``before`` those of the weights that training began with
    ``sampling``    of the panel: ``temperature``, ``top_p``, ``top_k``, ``max_response_tokens``
    ``thinking``    what the chat template is told as ``enable_thinking``; None: it does not ask
    ``command``     that started the training
    ``versions``    package -> version
    """

    name: str
    base_model: str | None = None
    license: str | None = None
    domain: str | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    panel: Panel = Panel()
    model: Sequence[Figure] = ()
    before: Sequence[Figure] = ()
    sampling: Mapping[str, float] | None = None
    thinking: bool | None = None
    command: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


def model_card(facts: CardFacts) -> str:
    """The text of ``README.md``."""
    return _PAGE.format(
        front_matter=yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True),
        name=facts.name,
        about=_table(("", ""), facts.about.items()) if facts.about else "",
        results=_results(facts),
        usage=usage(facts),
        prompts=_PROMPTS,
        training=_training(facts),
    )


def front_matter(facts: CardFacts) -> dict[str, Any]:
    """What the Hub reads of a card."""
    known = {"base_model": facts.base_model, "license": facts.license}
    tags = ["sdar", "reinforcement-learning", *([facts.domain] if facts.domain else [])]
    found: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    found |= {name: value for name, value in known.items() if value is not None}
    found["tags"] = tags
    if facts.model and facts.domain:
        results = [_result(facts, figure) for figure in facts.model]
        found["model-index"] = [{"name": facts.name, "results": results}]
    return found


def usage(facts: CardFacts) -> str:
    """A program that samples a response with transformers alone, as the panel did where that is known."""
    given = facts.sampling or {}
    options: dict[str, float] = {"max_new_tokens": given.get("max_response_tokens", _MOST_TOKENS)}
    if given.get("temperature"):
        filters = {name: given[name] for name in ("temperature", "top_p", "top_k") if name in given}
        options |= {"do_sample": True, **filters}
    else:
        options["do_sample"] = False
    thinking = "" if facts.thinking is None else f", enable_thinking={facts.thinking}"
    sampling = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return _USAGE.format(template_options=thinking, sampling=sampling)


def _result(facts: CardFacts, figure: Figure) -> dict[str, Any]:
    """An entry of ``model-index``."""
    split = {} if facts.panel.split is None else {"split": facts.panel.split}
    interval = "" if figure.interval is None else f", 95 % interval {_percent(figure.interval)}"
    return {
        "task": {"type": "text-generation", "name": f"agent, {_with(figure.skills)} in the prompt"},
        "dataset": {"type": facts.domain, "name": facts.domain, **split},
        "metrics": [
            {
                "type": "success_rate",
                "name": f"success rate (n = {figure.n}{interval})",
                "value": round(figure.successes / figure.n, 4),
            }
        ],
    }


def _results(facts: CardFacts) -> str:
    if not facts.model:
        return ""
    rows = [
        (
            figure.agent,
            _with(figure.skills),
            f"{100 * figure.successes / figure.n:.1f} %",
            "" if figure.interval is None else _percent(figure.interval),
            str(figure.successes),
            str(figure.n),
        )
        for figure in (*facts.before, *facts.model)
    ]
    table = _table(("agent", "prompt", "success", "95 % interval", "solved", "n"), rows)
    panel = facts.panel
    said = [
        "Success on a fixed panel of tasks" + (f" of the split `{panel.split}`" if panel.split else ""),
        None if panel.tasks is None else f"{panel.tasks} tasks",
        None if panel.content_hash is None else f"content hash `{panel.content_hash[:12]}`",
        None if panel.seed is None else f"panel and tokens of seed {panel.seed}",
    ]
    about = ", ".join(part for part in said if part)
    errors = sum(figure.errors for figure in (*facts.before, *facts.model))
    left_out = f" Episodes that ended by errors are left out: {errors}." if errors else ""
    one_run = "The intervals are Wilson's, over the tasks of this one run, and say nothing about other training seeds."
    return f"## Results\n\n{about}. {one_run}{left_out}\n\n{table}\n"


def _training(facts: CardFacts) -> str:
    parts = []
    if facts.command:
        parts.append(f"    {facts.command}\n")
    if facts.versions:
        parts.append(_table(("package", "version"), facts.versions.items()))
    return "## Training\n\n" + "\n".join(parts) if parts else ""


def _with(skills: bool) -> str:
    return "with skills" if skills else "without skills"


def _percent(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _table(heading: Sequence[str], rows: Any) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)
