"""The config of a GGUF file, from its metadata. Keys as in llama.cpp's ``gguf/constants.py``."""

from __future__ import annotations

from transformers import LlamaConfig

from ibllm_core.bases.gguf_metadata import Metadata
from ibllm_core.bases.gguf_rope import rope_parameters
from ibllm_core.bases.translate import translated_config


def llama_config(metadata: Metadata) -> LlamaConfig:
    """Map metadata and shapes to a ``LlamaConfig``; ``InvalidWeightsError`` for what a LLaMA does not have."""
    _check_architecture(metadata)
    shapes = metadata.shapes()
    num_heads = metadata.count("llama.attention.head_count")
    hidden_size = metadata.count("llama.embedding_length")
    head_dim = metadata.count("llama.attention.key_length", hidden_size // num_heads)
    rotated = metadata.count("llama.rope.dimension_count", head_dim)
    if rotated != head_dim:
        remedy = "a LLaMA rotates whole heads; choose another base model"
        raise metadata.refused("llama.rope.dimension_count", rotated, head_dim, remedy)
    with translated_config(metadata.path):
        return LlamaConfig(
            vocab_size=shapes["token_embd.weight"][0],
            hidden_size=hidden_size,
            intermediate_size=metadata.count("llama.feed_forward_length"),
            num_hidden_layers=metadata.count("llama.block_count"),
            num_attention_heads=num_heads,
            num_key_value_heads=metadata.count("llama.attention.head_count_kv", num_heads),
            head_dim=head_dim,
            max_position_embeddings=metadata.count("llama.context_length"),
            rms_norm_eps=metadata.value("llama.attention.layer_norm_rms_epsilon"),
            rope_parameters=rope_parameters(metadata, head_dim),
            tie_word_embeddings="output.weight" not in shapes,
            attention_bias="blk.0.attn_q.bias" in shapes,
            bos_token_id=metadata.value("tokenizer.ggml.bos_token_id", None),
            eos_token_id=metadata.value("tokenizer.ggml.eos_token_id", None),
            architectures=["LlamaForCausalLM"],
        )


def _check_architecture(metadata: Metadata) -> None:
    if (architecture := metadata.value("general.architecture")) != "llama":
        raise metadata.refused("general.architecture", architecture, "llama", "choose another base model")
    if experts := metadata.value("llama.expert_count", 0):
        remedy = "a mixture of experts is no LLaMA; choose another base model"
        raise metadata.refused("llama.expert_count", experts, 0, remedy)
    if (parts := metadata.value("split.count", 1)) > 1:
        raise metadata.refused("split.count", parts, 1, "join the parts with llama.cpp's gguf-split --merge")
    if "token_embd.weight" not in metadata.shapes():
        raise metadata.refused("token_embd.weight", "nothing", "the embedding", "copy or download the file again")
