"""Real files of tiny models in each format, written without the code under test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import sentencepiece
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCAB = 400
TOKENS = torch.arange(1, 61).view(2, 30) * 6 % VOCAB
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"num_key_value_heads": 4},
    "grouped": {"num_key_value_heads": 2},
    "tied": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama3": {"num_key_value_heads": 2, "rope_parameters": LLAMA3, "max_position_embeddings": 131072},
}


def tiny_llama(shape: str = "grouped", dtype: torch.dtype = torch.float32, **settings: Any) -> LlamaForCausalLM:
    """Two layers, heads of 16, norms that are not all ones; always the same."""
    config = LlamaConfig(
        **{
            "vocab_size": VOCAB,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            **SHAPES[shape],
            **settings,
        }
    )
    torch.manual_seed(0)
    llama = LlamaForCausalLM(config)
    rotary = llama.model.rotary_emb
    llama = llama.to(dtype).requires_grad_(False).eval()
    llama.model.rotary_emb = type(rotary)(config)  # .to(dtype) rounds the frequencies too, from_pretrained does not
    for name, weight in llama.named_parameters():
        weight.copy_(torch.rand_like(weight) + 0.5 if "norm" in name else torch.randn_like(weight) * 0.1)
    return llama


def logits(llama: LlamaForCausalLM) -> Tensor:
    with torch.inference_mode():
        return llama(TOKENS).logits


def write_pieces(folder: Path, **settings: Any) -> Path:
    """A SentencePiece model trained as LLaMA's was."""
    text = ["the quick brown fox jumps over the lazy dog", "what is in the picture? a cat on a mat.", "café 12 345"]
    options = {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "vocab_size": VOCAB,
        "hard_vocab_limit": False,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 20), model_prefix=str(folder / "tokenizer"), **{**options, **settings}
    )
    (folder / "tokenizer.vocab").unlink()
    return folder / "tokenizer.model"


def write_tokenizer(folder: Path, num_tokens: int = 8) -> None:
    """The files of a fast tokenizer whose tokens are ``<s>``, ``w1``, ``w2``, …"""
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"<s>": 0} | {f"w{i}": i for i in range(1, num_tokens)}, unk_token="<s>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<s>").save_pretrained(folder)


def interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """Undo Hugging Face's order of q's and k's rows, index by index: row 2i of a head is i, row 2i + 1 is d/2 + i."""
    head_dim = weight.shape[0] // num_heads
    order = [
        head * head_dim + i + half * head_dim // 2
        for head in range(num_heads)
        for i in range(head_dim // 2)
        for half in (0, 1)
    ]
    return weight[order]


def meta_weights(llama: LlamaForCausalLM) -> dict[str, Tensor]:
    config, weights = llama.config, llama.state_dict()
    meta = {
        "tok_embeddings.weight": weights["model.embed_tokens.weight"],
        "norm.weight": weights["model.norm.weight"],
        "output.weight": weights["lm_head.weight"],
        "rope.freqs": torch.ones(config.head_dim // 2),
    }
    for i in range(config.num_hidden_layers):
        ours, theirs = f"layers.{i}", f"model.layers.{i}"
        query, key = (weights[f"{theirs}.self_attn.{name}_proj.weight"] for name in "qk")
        meta |= {
            f"{ours}.attention.wq.weight": interleaved(query, config.num_attention_heads),
            f"{ours}.attention.wk.weight": interleaved(key, config.num_key_value_heads),
            f"{ours}.attention.wv.weight": weights[f"{theirs}.self_attn.v_proj.weight"],
            f"{ours}.attention.wo.weight": weights[f"{theirs}.self_attn.o_proj.weight"],
            f"{ours}.feed_forward.w1.weight": weights[f"{theirs}.mlp.gate_proj.weight"],
            f"{ours}.feed_forward.w2.weight": weights[f"{theirs}.mlp.down_proj.weight"],
            f"{ours}.feed_forward.w3.weight": weights[f"{theirs}.mlp.up_proj.weight"],
            f"{ours}.attention_norm.weight": weights[f"{theirs}.input_layernorm.weight"],
            f"{ours}.ffn_norm.weight": weights[f"{theirs}.post_attention_layernorm.weight"],
        }
    return meta


def write_meta(llama: LlamaForCausalLM, folder: Path, *, num_shards: int = 1, embedding_axis: int = 1) -> Path:
    """Meta's folder without a tokenizer, split as fairscale's parallel layers split."""
    folder.mkdir(exist_ok=True)
    axis_of = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1}
    axis_of["tok_embeddings"] = embedding_axis
    shards: list[dict[str, Tensor]] = [{} for _ in range(num_shards)]
    for key, weight in meta_weights(llama).items():
        axis = axis_of.get(key.split(".")[-2])
        for number, shard in enumerate(shards):
            shard[key] = (weight if axis is None else weight.chunk(num_shards, axis)[number]).clone()
    for number, shard in enumerate(shards):
        torch.save(shard, folder / f"consolidated.{number:02d}.pth")
    config = llama.config
    params = {
        "dim": config.hidden_size,
        "multiple_of": 256,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "vocab_size": -1,
    }
    if config.num_key_value_heads == config.num_attention_heads:
        del params["n_kv_heads"]  # LLaMA 1 and Llama 2 7B have no such key
    (folder / "params.json").write_text(json.dumps(params))
    return folder


def write_gguf(
    llama: LlamaForCausalLM,
    path: Path,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    *,
    metadata: dict[str, Any] | None = None,
    rope_factors: np.ndarray | None = None,
) -> Path:
    """A GGUF file as llama.cpp's converter writes it: q and k interleaved, norms in F32, a tiny BPE tokenizer."""
    config = llama.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_tokenizer_model("gpt2")
    letters = ["<s>", *"abcdefg", "ab"]
    writer.add_token_list(letters)
    writer.add_token_types([3, *[1] * 8])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for key, value in (metadata or {}).items():
        {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)](key, value)
    for key, weight in gguf_weights(llama).items():
        array = weight.float().numpy()
        plain = array.ndim == 1
        stored = gguf.GGMLQuantizationType.F32 if plain else kind
        writer.add_tensor(key, gguf.quantize(array, stored), raw_dtype=stored)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_weights(llama: LlamaForCausalLM) -> dict[str, Tensor]:
    names = {
        "tok_embeddings": "token_embd",
        "norm": "output_norm",
        "attention.wq": "attn_q",
        "attention.wk": "attn_k",
        "attention.wv": "attn_v",
        "attention.wo": "attn_output",
        "feed_forward.w1": "ffn_gate",
        "feed_forward.w2": "ffn_down",
        "feed_forward.w3": "ffn_up",
        "attention_norm": "attn_norm",
    }
    result = {}
    for key, weight in meta_weights(llama).items():
        if key == "rope.freqs" or (key == "output.weight" and llama.config.tie_word_embeddings):
            continue
        role = key.removesuffix(".weight")
        prefix = ""
        if role.startswith("layers."):
            _, layer, role = role.split(".", 2)
            prefix = f"blk.{layer}."
        result[f"{prefix}{names.get(role, role)}.weight"] = weight
    return result


def llama3_factors(head_dim: int, theta: float, factor: float, original: int = 8192) -> np.ndarray:
    """The divisors that llama.cpp's converter writes to rope_freqs.weight."""
    factors = []
    for frequency in 1.0 / (theta ** (np.arange(0, head_dim, 2) / head_dim)):
        wavelength = 2 * np.pi / frequency
        if wavelength < original / 4:
            factors.append(1.0)
        elif wavelength > original:
            factors.append(factor)
        else:
            smooth = (original / wavelength - 1) / 3
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors)
