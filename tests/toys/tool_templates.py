"""Templates that show tools in other forms than Qwen's: the pieces are the published ones, the programs are ours."""

from __future__ import annotations

from tokenizers import AddedToken

from toys.chat_templates import BY_NAME, Structure

_HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
_LLAMA = (
    "{{ bos_token }}"
    "{% if messages[0].role == 'system' %}{% set system, rest = messages[0].content | trim, messages[1:] %}"
    "{% else %}{% set system, rest = '', messages %}{% endif %}"
    + _HEADER.format("system")
    + "{% if tools %}Environment: ipython\n{% endif %}Today Date: {{ date_string }}\n\n{{ system }}<|eot_id|>"
    "{% if tools %}"
    + _HEADER.format("user")
    + "Given the following functions, please respond with a JSON for a function call.\n\n"
    "{% for tool in tools %}{{ tool | tojson(indent=4) }}\n\n{% endfor %}{{ rest[0].content | trim }}<|eot_id|>"
    "{% set rest = rest[1:] %}{% endif %}"
    "{% for m in rest %}{% if m.role == 'tool' %}"
    + _HEADER.format("ipython")
    + "{{ m.content | tojson }}<|eot_id|>{% elif m.tool_calls %}"
    + _HEADER.format("assistant")
    + '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}'
    "<|eot_id|>{% else %}"
    + _HEADER.format("{{ m.role }}")
    + "{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}{% if add_generation_prompt %}"
    + _HEADER.format("assistant")
    + "{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{% if tools and loop.index0 == 0 %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "[INST] {{ m.content }}[/INST]{% elif m.role == 'tool' %}[TOOL_RESULTS] {{ m.content }}[/TOOL_RESULTS]"
    "{% elif m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}{{ {'name': c.function.name, "
    "'arguments': c.function.arguments, 'id': c.id} | tojson }}{% endfor %}]{{ eos_token }}"
    "{% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% else %}{{ raise_exception('no system') }}{% endif %}"
    "{% endfor %}"
)


def _with(name: str, template: str, *tokens: str) -> Structure:
    base = BY_NAME[name]
    further = [AddedToken(content, special=True, normalized=False) for content in tokens]
    return Structure(name, base.kind, template, base.stops, base.append, [*base.tokens, *further], base.bos)


LLAMA = _with("llama3.1", _LLAMA, "<|python_tag|>")
"""Llama 3.1 to 3.3: tools in the first user message, bare calls, results as JSON in a message of their own."""
MISTRAL = _with(
    "mistral_tekken", _MISTRAL, "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)  # fmt: skip
"""Mistral's manner: a list of calls behind a token, no system message."""
MOVING = _with("mistral_tekken", _MISTRAL.replace("loop.index0 == 0", "loop.last"), "[AVAILABLE_TOOLS]")
"""Tools before the last message, as Mistral 7B v0.3 has them: no conversation with tools can be appended."""
