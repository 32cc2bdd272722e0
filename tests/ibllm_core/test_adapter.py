from pathlib import Path

import pytest
import torch

from ibllm_core import adapter
from ibllm_core.errors import BaseMismatchError, InvalidDataError
from ibllm_core.model.imagebind_llm import ImageBindLLM
from tests.conftest import FEATURE_DIM, tiny_llama


def header(**changes: object) -> adapter.AdapterHeader:
    values = {
        "stage": "stage1",
        "feature_dim": FEATURE_DIM,
        "lora_rank": 0,
        "base": "tiny",
        "base_sha256": "abc",
        "encoder": "none",
        "dataset": "ds-1",
        "parent": None,
        "job_id": "ftjob-1",
    }
    return adapter.AdapterHeader.model_validate({**values, **changes})


def test_a_stage_1_adapter_comes_back_whole(tmp_path: Path, open_model: ImageBindLLM) -> None:
    adapter.save(tmp_path, header(), adapter.adapted_tensors(open_model))
    other = ImageBindLLM(tiny_llama(), FEATURE_DIM)
    assert adapter.load_into(other, tmp_path, base_sha256="abc") == header()
    for (name, ours), (_, theirs) in zip(open_model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_stage_2_adapter_holds_lora_biases_and_norms(tmp_path: Path) -> None:
    model = ImageBindLLM(tiny_llama(), FEATURE_DIM, lora_rank=4)
    kept = set(adapter.adapted_tensors(model))
    left_out = {name for name, _ in model.named_parameters()} - kept
    assert all(name.endswith((".base.weight", "embed_tokens.weight")) for name in left_out)
    adapter.save(tmp_path, header(stage="stage2", lora_rank=4), adapter.adapted_tensors(model))
    with pytest.raises(InvalidDataError, match="that the model lacks"):
        adapter.load_into(ImageBindLLM(tiny_llama(), FEATURE_DIM), tmp_path, base_sha256="abc")


def test_another_base_is_refused_with_both_hashes(tmp_path: Path, model: ImageBindLLM) -> None:
    adapter.save(tmp_path, header(base_sha256="a" * 64), adapter.adapted_tensors(model))
    with pytest.raises(BaseMismatchError, match=r"aaaaaaaaaaaa.*bbbbbbbbbbbb"):
        adapter.load_into(model, tmp_path, base_sha256="b" * 64)
