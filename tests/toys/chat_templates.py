"""Structures of chat templates that models have: their tokens, and what comes around the messages.

Each is written here from what the template renders, without tools and the like: the tokens and their flags, the order
of the pieces, what is trimmed, dropped and opened are the published ones; the programs are ours. Two published
templates lie verbatim in ``tests/policy/templates``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from toys.tokenizers import toy_tokenizer_of

_PUBLISHED = Path(__file__).parents[1] / "policy" / "templates"


def _special(*contents: str, **flags: bool) -> list[AddedToken]:
    return [AddedToken(content, special=True, normalized=False, **flags) for content in contents]


def _plain(*contents: str, **flags: bool) -> list[AddedToken]:
    """Tokens without the flag of special ones, which tokenizers match in any text all the same."""
    return [AddedToken(content, special=False, normalized=False, **flags) for content in contents]


@dataclass(frozen=True)
class Structure:
    """A template with its tokens.

    ``kind``    of its tokenizer, see ``toys.tokenizers``
    ``stops``   tokens at which ``generate`` stops; the template's end token is the first
    ``append``  exact: appended turns have the ids of the rendering; kept: they keep what was said; refused
    ``refusal`` words of the sentence that refuses the template altogether; None: it is accepted
    """

    name: str
    kind: str
    template: str
    stops: Sequence[str]
    append: str
    tokens: Sequence[AddedToken] = ()
    bos: str | None = None
    refusal: str | None = None
    families: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def tokenizer(self, kind: str | None = None) -> PreTrainedTokenizerFast:
        named = {"eos_token": self.stops[-1], **({} if self.bos is None else {"bos_token": self.bos})}
        missing = [text for text in (*self.stops, *([self.bos] if self.bos else ())) if text not in self._contents]
        return toy_tokenizer_of(kind or self.kind, self.template, [*self.tokens, *_special(*missing)], **named)

    @property
    def _contents(self) -> set[str]:
        return {token.content for token in self.tokens}

    def stop_ids(self, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        return [int(tokenizer.convert_tokens_to_ids(text)) for text in self.stops]


def _loop(body: str, prompt: str, before: str = "") -> str:
    """A template that renders every message alike."""
    return f"{before}{{% for m in messages %}}{body}{{% endfor %}}{{% if add_generation_prompt %}}{prompt}{{% endif %}}"


_CHATML = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_IM = _special("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_QWEN3 = _plain("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_AFTER_THOUGHT = "{{ m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant' else m.content }}"
_DAY = "{{ strftime_now('%d %B %Y') }}"

STRUCTURES = [
    Structure(
        "chatml", "bpe", _loop(_CHATML, "<|im_start|>assistant\n"), ["<|im_end|>", "<|endoftext|>"], "exact", _IM,
        families="Yi, Hermes, Qwen1.5",
    ),
    Structure(
        "qwen2.5", "bpe", (_PUBLISHED / "qwen2_5_instruct.jinja").read_text(), ["<|im_end|>", "<|endoftext|>"], "exact",
        [*_IM, *_plain("<tool_call>", "</tool_call>")], families="Qwen2.5",
    ),
    Structure(
        "qwen3", "bpe", (_PUBLISHED / "qwen3.jinja").read_text(), ["<|im_end|>", "<|endoftext|>"], "kept",
        [*_IM, *_QWEN3], families="Qwen3",
    ),
    Structure(
        "qwen3_thinking", "bpe",
        _loop(_CHATML.replace("{{ m.content }}", _AFTER_THOUGHT), "<|im_start|>assistant\n<think>\n"),
        ["<|im_end|>", "<|endoftext|>"], "kept", [*_IM, *_QWEN3], families="Qwen3-Thinking, QwQ",
    ),
    Structure(
        "smollm2", "bpe",
        _loop(
            _CHATML, "<|im_start|>assistant\n",
            "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}",
        ),
        ["<|im_end|>"], "exact", _special("<|im_start|>", "<|im_end|>"), families="SmolLM2",
    ),
    Structure(
        "smollm3", "bpe",
        _loop(
            _CHATML.replace("{{ m.content }}", _AFTER_THOUGHT),
            "<|im_start|>assistant\n{% if not enable_thinking %}<think>\n\n</think>\n{% endif %}",
            f"<|im_start|>system\n## Metadata\n\nToday Date: {_DAY}\n<|im_end|>\n",
        ),
        ["<|im_end|>"], "kept", [*_special("<|im_start|>", "<|im_end|>"), *_plain("<think>", "</think>")],
        families="SmolLM3",
    ),
    Structure(
        "internlm2", "spm",
        _loop(_CHATML, "<|im_start|>assistant\n", "{{ bos_token }}"), ["<|im_end|>", "</s>"], "exact",
        _special("<|im_start|>", "<|im_end|>"), "<s>", families="InternLM2, InternLM3",
    ),
    Structure(
        "llama2", "spm_legacy",
        "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}"
        "{% elif m.role == 'assistant' %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
        ["</s>"], "kept", bos="<s>", families="Llama 2",
    ),
    Structure(
        "mistral_v1", "spm_legacy",
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% elif m.role == 'assistant' %}{{ m.content + eos_token + ' ' }}"
        "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}",
        ["</s>"], "exact", bos="<s>", families="Mistral-7B v0.1 and v0.2, Mixtral",
    ),
    Structure(
        "mistral_v3", "spm",
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
        "{% elif m.role == 'assistant' %}{{ ' ' + m.content.strip() + eos_token }}{% endif %}{% endfor %}",
        ["</s>"], "kept", _special("[INST]", "[/INST]"), "<s>", families="Mistral-7B v0.3",
    ),
    Structure(
        "mistral_tekken", "bpe",
        "{{ bos_token }}{% if messages[0].role != 'system' %}[SYSTEM_PROMPT]Today is "
        f"{_DAY}.[/SYSTEM_PROMPT]{{% endif %}}"
        "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
        "{% elif m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]"
        "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}",
        ["</s>"], "exact", _special("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), "<s>",
        families="Mistral-Small, Ministral",
    ),
    Structure(
        "llama3", "bpe",
        _loop(
            "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n", "{{ bos_token }}",
        ),
        ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"], "exact",
        _special("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"), "<|begin_of_text|>",
        families="Llama 3",
    ),
    Structure(
        "llama3.1", "bpe",
        _loop(
            "{% if m.role != 'system' %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
            "<|eot_id|>{% endif %}",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "{{ bos_token }}{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}"
            "{% endif %}<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday "
            "Date: {{ date_string }}\n\n{{ messages[0].content if messages[0].role == 'system' }}<|eot_id|>",
        ),
        ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"], "exact",
        _special("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"), "<|begin_of_text|>",
        families="Llama 3.1 to 3.3",
    ),
    Structure(
        "gemma", "spm",
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n"
        "{% endif %}",
        ["<end_of_turn>", "<eos>"], "exact", _special("<start_of_turn>", "<end_of_turn>"), "<bos>",
        families="Gemma, Gemma 2, Gemma 3",
    ),
    Structure(
        "phi3", "spm_legacy",
        _loop("<|{{ m.role }}|>\n{{ m.content }}<|end|>\n", "<|assistant|>\n"),
        ["<|end|>", "<|assistant|>", "<|endoftext|>"], "exact",
        _special("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", rstrip=True), "<s>", families="Phi 3, Phi 3.5",
    ),
    Structure(
        "phi4", "bpe",
        _loop("<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>", "<|im_start|>assistant<|im_sep|>"),
        ["<|im_end|>", "<|endoftext|>"], "exact", _special("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        families="Phi 4",
    ),
    Structure(
        "zephyr", "spm_legacy",
        _loop("<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n", "<|assistant|>\n"), ["</s>"], "exact", bos="<s>",
        families="Zephyr, TinyLlama",
    ),
    Structure(
        "vicuna", "spm_legacy",
        "{{ bos_token }}A chat between a curious user and an assistant. {% for m in messages %}"
        "{% if m.role == 'user' %}USER: {{ m.content }} {% else %}ASSISTANT: {{ m.content }}{{ eos_token }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
        ["</s>"], "kept", bos="<s>", families="Vicuna",
    ),
    Structure(
        "tulu", "bpe",
        _loop(
            "<|{{ m.role }}|>\n{{ m.content }}{{ eos_token if m.role == 'assistant' }}\n", "<|assistant|>\n",
            "{{ bos_token }}",
        ),
        ["<|endoftext|>"], "exact", bos="<|endoftext|>", families="OLMo, OLMo 2, Tulu",
    ),
    Structure(
        "deepseek_chat", "bpe",
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}User: {{ m.content }}\n\n{% else %}"
        "Assistant: {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}",
        ["<｜end▁of▁sentence｜>"], "kept", bos="<｜begin▁of▁sentence｜>", families="DeepSeek-V2",
    ),
    Structure(
        "deepseek_r1_distill", "bpe",
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% else %}"
        "<｜Assistant｜>"
        "{{ m.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}",
        ["<｜end▁of▁sentence｜>"], "kept", _plain("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        "<｜begin▁of▁sentence｜>", families="DeepSeek-R1 and its distillates",
    ),
    Structure(
        "deepseek_v3.1", "bpe",
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% else %}"
        "<｜Assistant｜>"
        "</think>{{ m.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜></think>{% endif %}",
        ["<｜end▁of▁sentence｜>"], "kept", [*_special("<｜User｜>", "<｜Assistant｜>"), *_plain("<think>", "</think>")],
        "<｜begin▁of▁sentence｜>", families="DeepSeek-V3.1",
    ),
    Structure(
        "command_r", "bpe",
        _loop(
            "<|START_OF_TURN_TOKEN|>{% if m.role == 'user' %}<|USER_TOKEN|>{% elif m.role == 'system' %}"
            "<|SYSTEM_TOKEN|>{% else %}<|CHATBOT_TOKEN|>{% endif %}{{ m.content.strip() }}<|END_OF_TURN_TOKEN|>",
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "{{ bos_token }}",
        ),
        ["<|END_OF_TURN_TOKEN|>"], "exact",
        _special("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|CHATBOT_TOKEN|>"), "<BOS_TOKEN>",
        families="Command R, Aya",
    ),
    Structure(
        "glm4", "bpe",
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        ["<|user|>", "<|observation|>", "<|endoftext|>"], "exact",
        _special("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"), families="GLM-4",
    ),
    Structure(
        "glm4.5", "bpe",
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}<think></think>\n"
        "{{ m.content.split('</think>')[-1].strip() }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{{ '' if enable_thinking else '\n<think></think>' }}{% endif %}",
        ["<|user|>", "<|observation|>", "<|endoftext|>"], "kept",
        [
            *_special("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
            *_plain("<think>", "</think>"),
        ],
        families="GLM-4.5, GLM-4.6",
    ),
    Structure(
        "harmony", "bpe",
        f"<|start|>system<|message|>You are a model.\nCurrent date: {_DAY.replace('%d %B %Y', '%Y-%m-%d')}<|end|>"
        "{% for m in messages %}{% if m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>{% else %}"
        "<|start|>assistant<|channel|>final<|message|>{{ m.content }}"
        "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        ["<|return|>", "<|call|>", "<|endoftext|>"], "refused",
        _special("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>", "<|call|>"), families="gpt-oss",
    ),
    Structure(
        "granite", "bpe",
        _loop(
            "{% if m.role != 'system' %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n"
            "{% endif %}",
            "<|start_of_role|>assistant<|end_of_role|>",
            f"<|start_of_role|>system<|end_of_role|>Today's Date: {_DAY}.\nYou are Granite.<|end_of_text|>\n",
        ),
        ["<|end_of_text|>"], "exact", _special("<|start_of_role|>", "<|end_of_role|>"), families="Granite 3",
    ),
    Structure(
        "exaone", "bpe",
        _loop(
            "[|{{ m.role }}|]{{ m.content }}{{ '\n' if m.role == 'user' else '[|endofturn|]\n' }}", "[|assistant|]",
        ),
        ["[|endofturn|]"], "exact", _special("[|user|]", "[|assistant|]", "[|endofturn|]"), families="EXAONE 3",
    ),
    Structure(
        "stablelm2", "bpe",
        _loop("<|{{ m.role }}|>\n{{ m.content }}<|endoftext|>\n", "<|assistant|>\n"), ["<|endoftext|>"], "exact",
        families="StableLM 2",
    ),
    Structure(
        "openchat", "spm_legacy",
        _loop(
            "GPT4 Correct {{ m.role.title() }}: {{ m.content }}<|end_of_turn|>", "GPT4 Correct Assistant:",
            "{{ bos_token }}",
        ),
        ["<|end_of_turn|>", "</s>"], "kept", _special("<|end_of_turn|>"), "<s>", families="OpenChat, Starling",
    ),
    Structure(
        "nemotron", "spm",
        _loop(
            "<extra_id_1>{{ m.role.title() }}\n{{ m.content }}\n", "<extra_id_1>Assistant\n",
            "<extra_id_0>System\n\n",
        ),
        ["<extra_id_1>"], "kept", _special("<extra_id_0>", "<extra_id_1>"), families="Nemotron-4, Minitron",
    ),
    Structure(
        "hashes", "spm_legacy",
        _loop("### {{ m.role.title() }}:\n{{ m.content }}\n\n", "### Assistant:\n", "{{ bos_token }}"), ["</s>"],
        "refused", bos="<s>", refusal="must end an assistant message with a special token",
        families="Alpaca, SOLAR",
    ),
    Structure(
        "unigram", "unigram",
        _loop("<|{{ m.role }}|>{{ m.content }}</s>", "<|assistant|>"), ["</s>"], "exact",
        _special("<|user|>", "<|assistant|>", "<|system|>"), families="models with SentencePiece's unigrams",
    ),
    Structure(
        "last_message_only", "bpe",
        "{% for m in messages %}{% if loop.last or m.role == 'assistant' %}" + _CHATML + "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ["<|im_end|>"], "refused", _IM, families="templates that rewrite a conversation",
    ),
]  # fmt: skip
"""In the order in which docs/models.md shows them."""

BY_NAME = {structure.name: structure for structure in STRUCTURES}
