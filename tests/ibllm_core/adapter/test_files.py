import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ibllm_core.adapter import files
from ibllm_core.adapter.header import Adapter
from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.errors import BaseMismatchError, CoreError, InvalidSpecError, InvalidWeightsError
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import adapted_parameters
from tests.conftest import FEATURE_DIM, tiny_llama
from tests.ibllm_core.adapter.adapters import adapter_of, random_model
from tests.ibllm_core.model.exact import FUSIONS

BASE = "a" * 64
GATES = "fusion.gates"


def install(model: ImageBindLLM, adapter: Adapter, base_sha256: str | None = BASE) -> None:
    files.install(model, adapter, base_sha256=base_sha256, source="adapter.safetensors")


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("fusion", FUSIONS, ids=str)
def test_an_adapter_comes_back_bit_by_bit(tmp_path: Path, fusion: Any, stage: Any) -> None:
    config = AdapterConfig(fusion=fusion, lora={"rank": 3, "targets": ["q_proj", "down_proj"]})
    model = random_model(config, stage)
    files.write(tmp_path, adapter_of(model, stage))
    back = files.read(tmp_path)
    assert back.header == adapter_of(model, stage).header == files.read_header(tmp_path)
    other = ImageBindLLM(tiny_llama(), FEATURE_DIM, config, stage)
    install(other, back)
    for (name, ours), (_, theirs) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_stage_2_begins_from_a_stage_1_adapter() -> None:
    first = random_model(AdapterConfig(), "stage1")
    second = ImageBindLLM(tiny_llama(), FEATURE_DIM, AdapterConfig(), "stage2")
    install(second, adapter_of(first, "stage1"))
    assert torch.equal(second.fusion.gates, first.fusion.gates)


def test_a_stage_2_adapter_holds_all_but_the_frozen_base() -> None:
    model = random_model(AdapterConfig(), "stage2")
    left_out = {name for name, _ in model.named_parameters()} - adapter_of(model, "stage2").tensors.keys()
    assert left_out
    assert all(name.endswith((".base.weight", "embed_tokens.weight")) for name in left_out)


def test_another_base_is_refused_with_both_hashes() -> None:
    model = random_model(AdapterConfig(), "stage1")
    with pytest.raises(BaseMismatchError, match=f"{BASE}.*{'b' * 64}"):
        install(model, adapter_of(model, "stage1"), "b" * 64)


def test_a_base_of_another_vocabulary_is_refused() -> None:
    adapter = adapter_of(random_model(AdapterConfig(), "stage1"), "stage1")
    larger = ImageBindLLM(tiny_llama(vocab_size=65), FEATURE_DIM, AdapterConfig())
    with pytest.raises(BaseMismatchError, match=r"with 64 tokens.*has 65"):
        install(larger, adapter, None)


def test_another_configuration_is_refused() -> None:
    adapter = adapter_of(random_model(AdapterConfig(), "stage1"), "stage1")
    model = ImageBindLLM(tiny_llama(), FEATURE_DIM, AdapterConfig(fusion="value_gate"))
    with pytest.raises(InvalidSpecError, match=r"fusion TokenAddConfig.*ValueGateConfig"):
        install(model, adapter)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({GATES: None}, r"fusion.gates is missing; expected shape \(2, 1\)"),
        ({GATES: torch.zeros(3, 1)}, r"fusion.gates has shape \(3, 1\); expected shape \(2, 1\)"),
        ({"fusion.unknown": torch.zeros(1)}, "fusion.unknown has no place"),
    ],
)
def test_wrong_tensors_are_refused_and_nothing_is_half_loaded(change: dict[str, Any], message: str) -> None:
    adapter = adapter_of(random_model(AdapterConfig(), "stage1"), "stage1")
    tensors = {name: tensor for name, tensor in {**adapter.tensors, **change}.items() if tensor is not None}
    model = ImageBindLLM(tiny_llama(), FEATURE_DIM, AdapterConfig())
    before = {name: p.clone() for name, p in adapted_parameters(model, "stage1")}
    with pytest.raises(InvalidWeightsError, match=message) as caught:
        install(model, Adapter(header=adapter.header, tensors=tensors))
    assert caught.value.fields["file"] == "adapter.safetensors"
    assert caught.value.fields["key"] == next(iter(change))
    assert all(torch.equal(p, before[name]) for name, p in adapted_parameters(model, "stage1"))


def test_another_lora_is_refused_in_stage_2_alone() -> None:
    config = AdapterConfig(lora={"rank": 2})
    other = ImageBindLLM(tiny_llama(), FEATURE_DIM, AdapterConfig(lora={"rank": 3}), "stage2")
    with pytest.raises(InvalidSpecError, match="the adapter has lora LoraConfig"):
        install(other, adapter_of(random_model(config, "stage2"), "stage2"))
    install(other, adapter_of(random_model(config, "stage1"), "stage1"))


def test_what_float16_cannot_hold_is_refused() -> None:
    adapter = adapter_of(random_model(AdapterConfig(), "stage1"), "stage1")
    adapter.tensors[GATES][0] = 1e6
    model = ImageBindLLM(tiny_llama().half(), FEATURE_DIM, AdapterConfig())
    with pytest.raises(InvalidWeightsError, match=r"fusion\.gates holds NaN or infinity in torch\.float16"):
        install(model, adapter)
    assert not bool(model.fusion.gates.any())


def written(folder: Path) -> Path:
    return files.write(folder, adapter_of(random_model(AdapterConfig(), "stage1"), "stage1"))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_nan_and_infinity_are_refused_with_their_key(tmp_path: Path, value: str) -> None:
    adapter = adapter_of(random_model(AdapterConfig(), "stage1"), "stage1")
    adapter.tensors[GATES][1] = float(value)
    files.write(tmp_path, adapter)
    with pytest.raises(InvalidWeightsError, match=r"fusion\.gates holds NaN"):
        files.read(tmp_path)


@pytest.mark.parametrize("kept", [4, 200, -10])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, kept: int) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InvalidWeightsError, match=r"adapter\.safetensors is no whole safetensors file") as caught:
        files.read(tmp_path)
    assert caught.value.fields["file"] == str(path)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeightsError, match=r"adapter\.safetensors"):
        files.read_header(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "has no adapter's header"),
        ({"format_version": 99}, "has format version 99, but this program reads 2"),
        ({"format_version": 2, "stage": "stage3"}, "header that cannot be used"),
    ],
)
def test_a_foreign_header_is_refused(tmp_path: Path, metadata: dict[str, Any] | None, message: str) -> None:
    path = written(tmp_path)
    tensors = load_file(path)
    save_file(tensors, path, metadata={files.HEADER_KEY: json.dumps(metadata)} if metadata else None)
    with pytest.raises(CoreError, match=message):
        files.read(tmp_path)
