"""LoRA as a peft folder, and adapters merged into their base."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ibllm_core.adapter import files
from ibllm_core.adapter.merged import MEDIA_ADAPTER, write_merged
from ibllm_core.adapter.peft_folder import write_peft
from ibllm_core.bases.load import load_base, weights_sha256
from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.errors import BaseMismatchError, InvalidSpecError
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import group_of
from tests.conftest import FEATURE_DIM, tiny_llama
from tests.ibllm_core.adapter.adapters import adapter_of, random_model
from tests.ibllm_core.model.exact import FUSIONS
from tests.ibllm_core.model.test_against_plain import our_logits

TOKENS = [3, 9, 27, 50, 4]


@pytest.mark.parametrize("lora", [{"rank": 4}, {"rank": 4, "alpha": 10, "targets": ["k_proj", "down_proj"]}])
def test_peft_itself_loads_the_lora_part(tmp_path: Path, lora: dict[str, Any]) -> None:
    model = random_model(AdapterConfig.model_validate({"lora": lora}), "stage2")
    write_peft(tmp_path, adapter_of(model, "stage2"))
    theirs = PeftModel.from_pretrained(tiny_llama(), tmp_path).eval()
    with torch.no_grad():
        plain = dict(tiny_llama().named_parameters())
        for name, parameter in model.named_parameters():  # what peft's format has no place for
            if group_of(name) == "bias":
                parameter.zero_()
            if group_of(name) == "norm":
                parameter.copy_(plain[name.removeprefix("llama.")])
        expected = theirs(input_ids=torch.tensor([TOKENS])).logits[0]
        torch.testing.assert_close(our_logits(model, (TOKENS, 1, None)), expected, rtol=1e-5, atol=1e-5)
        untouched = tiny_llama()(input_ids=torch.tensor([TOKENS])).logits[0]
    assert (expected - untouched).abs().max() > 0.1


def test_a_stage_1_adapter_has_no_lora_to_export(tmp_path: Path) -> None:
    adapter = adapter_of(random_model(AdapterConfig(), "stage1"), "stage1")
    with pytest.raises(InvalidSpecError, match="stage-1 adapter has no LoRA"):
        write_peft(tmp_path, adapter)


@pytest.fixture
def base(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    return write_base(tmp_path / "base", tokenizer)


def write_base(folder: Path, tokenizer: PreTrainedTokenizerFast, *, attention_bias: bool = False) -> Path:
    """With random biases where it has any."""
    llama = tiny_llama(attention_bias=attention_bias)
    with torch.no_grad():
        for name, parameter in llama.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_()
    llama.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def base_biases(folder: Path) -> dict[str, torch.Tensor]:
    """The base's biases, by their names in a model whose linears are wrapped."""
    weights = load_file(folder / "model.safetensors")
    return {name.replace(".bias", ".base.bias"): t for name, t in weights.items() if name.endswith(".bias")}


@pytest.mark.parametrize("biased", [False, True], ids=["plain base", "base with biases"])
@pytest.mark.parametrize("fusion", FUSIONS, ids=str)
def test_a_merged_model_with_its_media_part_is_the_adapted_model(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, fusion: Any, biased: bool
) -> None:
    targets = ["q_proj", "o_proj", "gate_proj", "down_proj"]  # the media of some fusions needs the base's own k and v
    base = write_base(tmp_path / "base", tokenizer, attention_bias=biased)
    config = AdapterConfig.model_validate({"fusion": fusion, "lora": {"rank": 3, "alpha": 5, "targets": targets}})
    model = random_model(config, "stage2", attention_bias=biased)
    if biased:
        model.llama.load_state_dict(base_biases(base), strict=False)
    adapter = adapter_of(model, "stage2", base_sha256=weights_sha256(base))
    write_merged(tmp_path / "merged", base, adapter, dtype=torch.float32)

    feature = torch.randn(FEATURE_DIM)
    merged = load_base(tmp_path / "merged", torch.float32)
    media = files.read(tmp_path / "merged" / MEDIA_ADAPTER)
    again = ImageBindLLM(merged.llama, FEATURE_DIM, media.header.config, media.header.stage)
    files.install(again, media, base_sha256=merged.sha256, source="merged")
    with torch.no_grad():
        for sample in ((TOKENS, 1, None), (TOKENS, 1, feature)):
            torch.testing.assert_close(our_logits(again, sample), our_logits(model, sample), rtol=1e-5, atol=1e-5)
        text = LlamaForCausalLM.from_pretrained(tmp_path / "merged")(input_ids=torch.tensor([TOKENS])).logits[0]
        torch.testing.assert_close(text, our_logits(model, (TOKENS, 1, None)), rtol=1e-5, atol=1e-5)


def test_a_merge_onto_another_base_is_refused(tmp_path: Path, base: Path) -> None:
    adapter = adapter_of(random_model(AdapterConfig(), "stage2"), "stage2")
    with pytest.raises(BaseMismatchError, match="a" * 64):
        write_merged(tmp_path / "merged", base, adapter, dtype=torch.float32)
    assert not (tmp_path / "merged").exists()


def test_merging_is_refused_where_media_would_see_other_weights(tmp_path: Path, base: Path) -> None:
    model = random_model(AdapterConfig(fusion="value_gate"), "stage2")
    adapter = adapter_of(model, "stage2", base_sha256=weights_sha256(base))
    with pytest.raises(InvalidSpecError, match="needs the base's own v_proj"):
        write_merged(tmp_path / "merged", base, adapter, dtype=torch.float32)
    assert not (tmp_path / "merged").exists()
    write_merged(tmp_path / "merged", base, adapter, dtype=torch.float32, text_only=True)
    with torch.no_grad():
        text = LlamaForCausalLM.from_pretrained(tmp_path / "merged")(input_ids=torch.tensor([TOKENS])).logits[0]
        torch.testing.assert_close(text, our_logits(model, (TOKENS, 1, None)), rtol=1e-5, atol=1e-5)
