from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ibllm_core.bases.load import load_llama, weights_sha256
from tests.ibllm_core.bases.files import SHAPES, logits, tiny_llama


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard_size", ["1GB", "60KB"])
def test_a_folder_gives_what_transformers_gives_to_the_bit(
    tmp_path: Path, shape: str, dtype: torch.dtype, shard_size: str
) -> None:
    tiny_llama(shape).save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard_size == "60KB")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype, local_files_only=True)
    ours = load_llama(tmp_path, dtype)
    assert torch.equal(logits(ours), logits(theirs))
    for buffer in ("inv_freq", "original_inv_freq"):
        mine, other = (getattr(llama.model.rotary_emb, buffer) for llama in (ours, theirs))
        assert mine.dtype == torch.float32
        assert torch.equal(mine, other)
    assert {name: p.dtype for name, p in ours.named_parameters()} == dict.fromkeys(
        dict(theirs.named_parameters()), dtype
    )
    assert not any(tensor.is_meta for tensor in [*ours.parameters(), *ours.buffers()])
    assert ours.config.to_dict() | {"_name_or_path": str(tmp_path)} == theirs.config.to_dict()
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) == (shape == "tied")


def test_the_model_is_frozen_and_in_eval_mode(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    llama = load_llama(tmp_path, torch.float32)
    assert not any(parameter.requires_grad for parameter in llama.parameters())
    assert not any(module.training for module in llama.modules())


def test_biases_are_loaded_where_the_config_has_them(tmp_path: Path) -> None:
    original = tiny_llama(attention_bias=True, mlp_bias=True)
    original.save_pretrained(tmp_path)
    llama = load_llama(tmp_path, torch.float32)
    assert torch.equal(llama.model.layers[1].mlp.up_proj.bias, original.model.layers[1].mlp.up_proj.bias)
    assert torch.equal(logits(llama), logits(original))


def test_rotary_frequencies_that_old_exports_carry_are_left_aside(tmp_path: Path) -> None:
    original = tiny_llama()
    original.save_pretrained(tmp_path)
    sha256 = weights_sha256(tmp_path)
    file = tmp_path / "model.safetensors"
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.full((8,), torch.nan)}
    save_file(load_file(file) | extra, file, metadata={"format": "pt"})
    assert torch.equal(logits(load_llama(tmp_path, torch.float32)), logits(original))
    assert weights_sha256(tmp_path) == sha256


def test_a_tied_head_may_be_stored_if_it_equals_the_embedding(tmp_path: Path) -> None:
    original = tiny_llama("tied")
    original.save_pretrained(tmp_path)
    sha256 = weights_sha256(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    head = {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}
    save_file(weights | head, file, metadata={"format": "pt"})
    assert torch.equal(logits(load_llama(tmp_path, torch.float32)), logits(original))
    assert weights_sha256(tmp_path) == sha256
