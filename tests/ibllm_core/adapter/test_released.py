"""Released checkpoints at small dims: what they compute, and bit by bit both ways."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ibllm_core.adapter import files
from ibllm_core.adapter.header import Adapter
from ibllm_core.adapter.released import read_released, write_released
from ibllm_core.bases.layout import to_half_split
from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.errors import InvalidSpecError, InvalidWeightsError
from ibllm_core.model.imagebind_llm import ImageBindLLM
from tests.conftest import FEATURE_DIM, tiny_llama
from tests.ibllm_core.adapter.adapters import adapter_of, random_model
from tests.ibllm_core.model.exact import ExactRotary, plain_config
from tests.ibllm_core.model.test_against_plain import our_logits
from tests.reference import plain, released

SIZES: dict[str, Any] = {"num_layers": 2, "num_heads": 4, "model_dim": 32, "hidden_dim": 48, "vocab": 64, "rank": 3}
VARIANTS = [("stage1", False), ("stage2", False), ("stage2", True)]


def synthetic(stage: Any, beta: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return released.synthetic(**SIZES, feature_dim=FEATURE_DIM, stage=stage, beta=beta, seed=1)


def base_of(meta: dict[str, Tensor]) -> Any:
    """The same LLaMA in transformers' layout."""
    llama = tiny_llama(num_key_value_heads=4, tie_word_embeddings=False, rms_norm_eps=1e-6)
    names = {"wq": "self_attn.q_proj", "wk": "self_attn.k_proj", "wv": "self_attn.v_proj", "wo": "self_attn.o_proj"}
    names |= {"w1": "mlp.gate_proj", "w2": "mlp.down_proj", "w3": "mlp.up_proj"}
    with torch.no_grad():
        llama.model.embed_tokens.weight.copy_(meta["tok_embeddings.weight"])
        llama.model.norm.weight.copy_(meta["norm.weight"])
        llama.lm_head.weight.copy_(meta["output.weight"])
        for index, layer in enumerate(llama.model.layers):
            layer.input_layernorm.weight.copy_(meta[f"layers.{index}.attention_norm.weight"])
            layer.post_attention_layernorm.weight.copy_(meta[f"layers.{index}.ffn_norm.weight"])
            for theirs, ours in names.items():
                block = "attention" if ours.startswith("self") else "feed_forward"
                weight = meta[f"layers.{index}.{block}.{theirs}.weight"]
                layer.get_submodule(ours).weight.copy_(to_half_split(weight, 4) if theirs in ("wq", "wk") else weight)
    return llama


def save(path: Path, adapter: dict[str, Tensor]) -> Path:
    torch.save({"model": adapter}, path)
    return path


@pytest.mark.parametrize(("stage", "beta"), VARIANTS)
def test_an_imported_checkpoint_gives_the_released_logits(tmp_path: Path, stage: Any, beta: bool) -> None:
    meta, checkpoint = synthetic(stage, beta)
    imported = read_released(save(tmp_path / "7B.pth", checkpoint))
    assert imported.header.stage == stage
    assert imported.header.config.bind_norm == ("legacy" if beta else "rms")
    model = ImageBindLLM(base_of(meta), FEATURE_DIM, imported.header.config, stage).double()
    model.llama.model.rotary_emb = ExactRotary(plain.rope_frequencies(plain_config(model)))
    files.install(model, imported, base_sha256=None, source="7B.pth")
    tokens, feature = [1, 5, 9, 33, 2, 60], torch.randn(FEATURE_DIM, dtype=torch.float64)
    expected = released.logits(
        {name: t.double() for name, t in meta.items()},
        {name: t.double() for name, t in checkpoint.items()},
        num_heads=4,
        norm_eps=1e-6,
        tokens=tokens,
        feature=feature,
    )
    torch.testing.assert_close(our_logits(model, (tokens, 1, feature)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtypes", ["float32", "mixed"])
@pytest.mark.parametrize(("stage", "beta"), VARIANTS)
def test_what_is_imported_is_exported_bit_by_bit(tmp_path: Path, stage: Any, beta: bool, dtypes: str) -> None:
    """Through our own file in between, with half-precision tensors left as they are."""
    _, checkpoint = synthetic(stage, beta)
    if dtypes == "mixed":
        checkpoint = {name: t.half() if "gate" in name or "norm" in name else t for name, t in checkpoint.items()}
    files.write(tmp_path / "ours", read_released(save(tmp_path / "7B.pth", checkpoint)))
    write_released(tmp_path / "again.pth", files.read(tmp_path / "ours"))
    again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
    assert again.keys() == checkpoint.keys()
    for name, tensor in checkpoint.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor), name


def test_early_names_and_a_stage_1_file_with_norms_are_understood(tmp_path: Path) -> None:
    _, checkpoint = synthetic("stage1", False)
    norms = {
        name: t for name, t in synthetic("stage2", False)[1].items() if name.startswith("llama.") and "norm" in name
    }
    early = {name.replace("llama.", "llma."): tensor for name, tensor in (checkpoint | norms).items()}
    early["prefix_projector_norm.weight"] = torch.ones(3)
    imported = read_released(save(tmp_path / "old.pth", early))
    assert imported.header.stage == "stage1"
    assert torch.equal(imported.tensors["llama.model.norm.weight"], norms["llama.norm.weight"])
    model = ImageBindLLM(tiny_llama(num_key_value_heads=4), FEATURE_DIM, imported.header.config)
    files.install(model, imported, base_sha256=None, source="old.pth")
    assert torch.equal(model.llama.model.norm.weight, norms["llama.norm.weight"])
    write_released(tmp_path / "again.pth", imported)
    assert torch.load(tmp_path / "again.pth", weights_only=True)["model"].keys() == (checkpoint | norms).keys()


@pytest.mark.parametrize(
    ("removed", "added"),
    [
        ("prefix_query.weight", ""),
        ("image_bind_f2_3.weight", ""),
        ("llama.layers.1.attention.gate", ""),
        ("llama.layers.1.feed_forward.lora_w2_l2.weight", ""),
        ("llama.layers.0.ffn_norm.weight", ""),
        ("llama.layers.0.attention.wo.bias", ""),
        ("", "llama.layers.0.attention.wk.bias"),
    ],
)
def test_exactly_the_keys_of_the_stage_are_accepted(tmp_path: Path, removed: str, added: str) -> None:
    _, checkpoint = synthetic("stage2", False)
    if added:
        checkpoint[added] = torch.zeros(32)
    checkpoint.pop(removed, None)
    path = save(tmp_path / "7B.pth", checkpoint)
    with pytest.raises(InvalidWeightsError, match="is missing" if removed else "has no place") as caught:
        read_released(path)
    assert caught.value.fields["key"] == (removed or added)
    assert caught.value.fields["file"] == str(path)


WQ = "llama.layers.0.attention.lora_wq_l2.weight"


@pytest.mark.parametrize(
    ("key", "tensor"),
    [
        ("llama.layers.1.attention.gate", torch.zeros(1, 2, 1, 1)),
        ("llama.layers.0.attention.gate", torch.zeros(1, 3, 1, 1)),
        (WQ, torch.zeros(30, 3)),
        ("prefix_query.weight", torch.tensor(1.0)),
        ("image_bind_proj.weight", torch.zeros(32)),
        ("llama.layers.0.feed_forward.lora_w2_l1.weight", torch.zeros(600, 48)),
        ("llama.norm.weight", torch.ones(1)),
        ("image_bind_f1_2.weight", torch.full((128, 32), float("nan"))),
        ("image_bind_f1_2.weight", torch.full((128, 32), float("inf"))),
    ],
)
def test_a_tensor_of_another_shape_or_not_finite_is_refused_by_its_key(
    tmp_path: Path, key: str, tensor: Tensor
) -> None:
    path = save(tmp_path / "7B.pth", {**synthetic("stage2", False)[1], key: tensor})
    with pytest.raises(InvalidWeightsError) as caught:
        read_released(path)
    assert caught.value.fields["file"] == str(path)
    if tensor.shape[:1] != (600,):  # there the other layers' ranks are at fault first
        assert caught.value.fields["key"] == key


@pytest.mark.parametrize("norms", [{"llama.norm.weight"}, {"llama.norm.weight", "llama.layers.0.ffn_norm.weight"}])
def test_a_stage_1_file_holds_all_norms_or_none(tmp_path: Path, norms: set[str]) -> None:
    checkpoint = synthetic("stage1", False)[1] | dict.fromkeys(norms, torch.ones(32))
    with pytest.raises(InvalidWeightsError, match=r"norm\.weight is missing"):
        read_released(save(tmp_path / "7B.pth", checkpoint))


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 no archive", bytes(range(256)) * 8], ids=["empty", "zip", "bytes"]
)
def test_a_file_of_anything_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(InvalidWeightsError, match=r"bad\.pth is no readable checkpoint"):
        read_released(tmp_path / "bad.pth")


class Mischief:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "run")


def test_a_pickle_with_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    torch.save({"model": Mischief(tmp_path / "trace")}, tmp_path / "bad.pth")
    with pytest.raises(InvalidWeightsError, match=r"bad\.pth is no readable checkpoint"):
        read_released(tmp_path / "bad.pth")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", [{"model": {"epoch": 3}}, {"model": {3: torch.zeros(1)}}, [1, 2]])
def test_a_pickle_without_weights_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(InvalidWeightsError, match="holds no dictionary of tensors"):
        read_released(tmp_path / "bad.pth")


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "7B.pth", synthetic("stage1", False)[1])
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InvalidWeightsError, match=r"7B\.pth is no readable checkpoint"):
        read_released(path)


@pytest.mark.parametrize(
    ("config", "llama", "message"),
    [
        ({"fusion": "token_add"}, {}, "only knows 'value_gate'"),
        ({"fusion": "value_gate", "bind_norm": "layer"}, {}, "only knows 'rms' and 'legacy'"),
        ({"fusion": "value_gate", "lora": {"alpha": 32}}, {}, "LoRA scaled by 2.0"),
        ({"fusion": "value_gate", "lora": {"targets": ["q_proj"]}}, {}, "1 of 7 linears"),
        ({"fusion": "value_gate"}, {"num_key_value_heads": 2}, "grouped queries"),
    ],
)
def test_what_the_layout_cannot_hold_is_not_exported(
    tmp_path: Path, config: dict[str, Any], llama: dict[str, Any], message: str
) -> None:
    model = random_model(AdapterConfig.model_validate(config), "stage2", **({"num_key_value_heads": 4} | llama))
    adapter: Adapter = adapter_of(model, "stage2")
    with pytest.raises(InvalidSpecError, match=message):
        write_released(tmp_path / "7B.pth", adapter)
    assert not (tmp_path / "7B.pth").exists()
