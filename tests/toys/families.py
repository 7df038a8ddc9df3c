"""Tiny random models of the families that transformers has, and what becomes of each: it plays, or is refused.

The configurations are the published architectures', made small: two layers, a few ten thousand parameters, and windows
so short that episodes reach beyond them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

VOCABULARY = 448
"""More than any toy tokenizer has: published models pad theirs, too."""
CONTEXT, WINDOW = 512, 48

_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": CONTEXT,
    "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "n_inner": 48, "n_ctx": CONTEXT, "d_model": 32,
    "n_heads": 4, "n_layers": 2, "num_layers": 2, "num_heads": 4, "max_seq_len": CONTEXT, "ffn_dim": 48,
    "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "attention_heads": 4, "rotary_dim": 4,
    "word_embed_proj_dim": 32, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "n_shared_experts": 1, "moe_num_experts": 4, "moe_k": 2, "kv_lora_rank": 16, "q_lora_rank": 16,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "sliding_window": WINDOW, "attention_chunk_size": WINDOW, "window_size": WINDOW,
    "local_attention": WINDOW, "state_size": 4, "embedding_size": 32, "global_head_dim": 8,
    "num_global_key_value_heads": 2, "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8,
    "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 2, "initializer_range": 0.2, "init_std": 0.2,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One architecture.

    ``kind``     of model_type
    ``models``   published models of it
    ``traits``   what is special about it
    ``refusal``  words of the sentence that refuses it; None: it plays
    ``context``  tokens of its context here
    ``settings`` of its configuration besides those of all
    """

    kind: str
    models: str
    traits: str = ""
    refusal: str | None = None
    context: int = CONTEXT
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or self.kind

    def config(self, **settings: Any) -> PreTrainedConfig:
        blank = CONFIG_MAPPING[self.kind]().get_text_config(decoder=True)
        names = set(vars(blank)) | set(type(blank).attribute_map)
        known = {name: value for name, value in _SMALL.items() if name in names}
        return type(blank)(**{**known, **self.settings, **settings})

    def model(self, seed: int = 0, **settings: Any) -> PreTrainedModel:
        """The same weights for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = AutoModelForCausalLM.from_config(self.config(**settings)).eval()
            with torch.no_grad():
                for parameter in made.parameters():
                    # Biases, and heads that some architectures begin with zeros, are to tell in the result.
                    if not parameter.any():
                        parameter.normal_(std=0.1)
        assert isinstance(made, PreTrainedModel)
        return made


_STATE = "which keep more than the keys and values"
_LATER = "log-probs of tokens depend on later tokens"

FAMILIES = [
    Family("llama", "Llama 2 and 3, Yi, SmolLM2, DeepSeek distillates", "rotary positions, grouped queries"),
    Family("mistral", "Mistral 7B v0.1", "sliding window in every layer"),
    Family("ministral", "Ministral 8B", "sliding window by layer"),
    Family("ministral3", "Ministral 3", "sliding window in every layer"),
    Family("qwen2", "Qwen2, Qwen2.5, QwQ", "biases, head tied or not"),
    Family("qwen3", "Qwen3", "normed queries and keys"),
    Family("gemma", "Gemma", "tied head, scaled embeddings"),
    Family("gemma2", "Gemma 2", "capped logits, every other layer has a window"),
    Family("gemma3_text", "Gemma 3, text alone", "windows, two kinds of rotary positions",
           settings={"layer_types": ["sliding_attention", "full_attention"]}),
    Family("gemma4_text", "Gemma 4, text alone", "inputs by layer", settings={"num_kv_shared_layers": 0}),
    Family("vaultgemma", "VaultGemma", "windows, capped logits"),
    Family("phi", "Phi 1 and 2", "partly rotated, biased head"),
    Family("phi3", "Phi 3, Phi 4", "sliding window in every layer"),
    Family("phi3", "Phi 3 and 3.5 128k, Phi 4 mini", "longrope", context=160, label="phi3_longrope", settings={
        "sliding_window": None, "original_max_position_embeddings": 160, "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 160}}),
    Family("llama", "models stretched by dynamic NTK scaling", "positions that depend on the length beyond the context",
           label="llama_dynamic", settings={"max_position_embeddings": CONTEXT, "rope_parameters": {
               "rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0,
               "original_max_position_embeddings": 128}}),
    Family("llama", "Llama 3.1 to 3.3", "scaled rotary positions", label="llama3_scaled", settings={
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
                            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
    Family("stablelm", "StableLM", "partly rotated"),
    Family("olmo", "OLMo", "norms without weights"),
    Family("olmo2", "OLMo 2", "norms behind the layers"),
    Family("olmo3", "OLMo 3", "windows"),
    Family("granite", "Granite 3", "divided logits"),
    Family("cohere", "Command R, Aya", "scaled logits, tied head"),
    Family("cohere2", "Command R7B", "scaled logits, windows"),
    Family("glm", "GLM-4 9B", "partly rotated"),
    Family("glm4", "GLM-4-0414", "norms on both sides"),
    Family("gpt2", "GPT-2", "learned positions, dropout"),
    Family("gpt_neo", "GPT-Neo", "local attention in every other layer", context=160,
           settings={"window_size": 160, "attention_types": [[["global", "local"], 1]]}),
    Family("gpt_neox", "Pythia, GPT-NeoX", "parallel layers"),
    Family("gptj", "GPT-J", "biased head"),
    Family("gpt_bigcode", "StarCoder", "one key and value for all heads"),
    Family("codegen", "CodeGen"),
    Family("opt", "OPT", "learned positions, dropout"),
    Family("starcoder2", "StarCoder2", "sliding window, dropout in attention",
           settings={"attention_dropout": 0.1, "residual_dropout": 0.1}),
    Family("smollm3", "SmolLM3", "layers without positions"),
    Family("exaone4", "EXAONE 4", "windows"),
    Family("nemotron", "Nemotron 4, Minitron"),
    Family("helium", "Helium"),
    Family("ernie4_5", "ERNIE 4.5"),
    Family("seed_oss", "Seed-OSS"),
    Family("hunyuan_v1_dense", "Hunyuan"),
    Family("apertus", "Apertus"),
    Family("arcee", "Arcee AFM"),
    Family("bitnet", "BitNet"),
    Family("diffllama", "DiffLlama", "differences of attentions"),
    Family("nanochat", "nanochat", "capped logits"),
    Family("persimmon", "Persimmon"),
    Family("xglm", "XGLM", "computed positions"),
    Family("biogpt", "BioGPT", "learned positions"),
    Family("mpt", "MPT", "ALiBi"),
    Family("minicpm3", "MiniCPM 3", "latent attention", settings={"num_key_value_heads": 4}),
    Family("mixtral", "Mixtral", "experts"),
    Family("qwen2_moe", "Qwen1.5-MoE, Qwen2-MoE", "experts"),
    Family("qwen3_moe", "Qwen3-MoE", "experts"),
    Family("olmoe", "OLMoE", "experts"),
    Family("phimoe", "Phi 3.5 MoE", "experts, noise in training"),
    Family("glm4_moe", "GLM-4.5", "experts"),
    Family("deepseek_v2", "DeepSeek-V2", "experts, latent attention", settings={"num_key_value_heads": 4}),
    Family("deepseek_v3", "DeepSeek-V3 and R1", "experts, latent attention", settings={"num_key_value_heads": 4}),
    Family("gpt_oss", "gpt-oss", "experts, windows, attention sinks"),
    Family("granitemoe", "Granite 3 MoE", "experts, divided logits"),
    Family("jetmoe", "JetMoE", "experts in attention"),
    Family("ernie4_5_moe", "ERNIE 4.5 MoE", "experts"),
    Family("dots1", "dots.llm1", "experts"),
    Family("minimax_m2", "MiniMax-M2", "experts"),
    Family("llama4_text", "Llama 4, text alone", "experts, chunked attention",
           settings={"layer_types": ["chunked_attention", "full_attention"]}),
    Family("falcon", "Falcon 7B", "rotary positions"),
    Family("falcon", "Falcon RW", "ALiBi", refusal="ALiBi", label="falcon_alibi", settings={"alibi": True}),
    Family("bloom", "BLOOM", "ALiBi", refusal="ALiBi"),
    Family("mamba", "Mamba", "state-space", refusal=_STATE),
    Family("falcon_mamba", "Falcon Mamba", "state-space", refusal=_STATE),
    Family("rwkv", "RWKV", "recurrent", refusal="recurrent state"),
    Family("olmo_hybrid", "OLMo Hybrid", "state and attention", refusal=_STATE),
    Family("falcon_h1", "Falcon-H1", "state and attention", refusal=_STATE, settings={"mamba_d_ssm": 32,
           "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}),
    Family("minimax", "MiniMax-Text-01", "linear attention", refusal=_STATE,
           settings={"layer_types": ["linear_attention", "full_attention"]}),
    Family("lfm2", "LFM2", "convolutions and attention", refusal=_STATE,
           settings={"layer_types": ["conv", "full_attention"]}),
    Family("openai-gpt", "GPT", "no key/value cache", refusal="takes no key/value cache"),
    Family("bert", "BERT as a decoder without its flag", "attends to later tokens", refusal=_LATER),
    Family("roberta", "RoBERTa as a decoder without its flag", "attends to later tokens", refusal=_LATER),
]  # fmt: skip
"""In the order in which docs/models.md shows them."""

BY_NAME = {family.name: family for family in FAMILIES}
assert len(BY_NAME) == len(FAMILIES)
