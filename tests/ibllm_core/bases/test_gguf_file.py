from pathlib import Path

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from ibllm_core.bases.formats import open_source
from ibllm_core.bases.load import load_base, load_llama, weights_sha256
from ibllm_core.errors import InvalidWeightsError
from tests.ibllm_core.bases.files import LLAMA3, llama3_factors, logits, tiny_llama, write_gguf


@pytest.mark.parametrize("shape", ["plain", "grouped", "tied"])
def test_an_unquantised_file_gives_the_logits_of_the_model(tmp_path: Path, shape: str) -> None:
    original = tiny_llama(shape)
    path = write_gguf(original, tmp_path / "tiny.gguf")
    llama = load_llama(path, torch.float32)
    assert torch.equal(logits(llama), logits(original))
    assert (llama.lm_head.weight is llama.model.embed_tokens.weight) == (shape == "tied")
    original.save_pretrained(tmp_path / "hf")
    assert weights_sha256(path) == weights_sha256(tmp_path / "hf")


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1])
def test_quantised_weights_are_those_that_the_gguf_package_dequantises(tmp_path: Path, kind: Kind) -> None:
    original = tiny_llama()
    for weight in original.parameters():
        if weight.dim() > 1:  # rows stay rows under the permutation of q and k, so the order of both steps is free
            weight.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind)))
    path = write_gguf(tiny_llama(), tmp_path / "tiny.gguf", kind)
    assert torch.equal(logits(load_llama(path, torch.float32)), logits(original))
    assert not torch.equal(logits(original), logits(tiny_llama()))
    stored = {tensor.dtype for tensor in open_source(path).tensors() if len(tensor.shape) > 1}
    assert stored == {{Kind.F16: torch.float16, Kind.BF16: torch.bfloat16}.get(kind, torch.float32)}


def test_dequantising_in_blocks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tiny_llama(), tmp_path / "tiny.gguf", Kind.Q8_0)
    whole = weights_sha256(path)
    monkeypatch.setattr("ibllm_core.bases.gguf_file.BLOCK_ELEMENTS", 1000)  # no multiple of a block or a row
    assert weights_sha256(path) == whole


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_scaling_is_derived_from_its_divisors(tmp_path: Path, factor: float) -> None:
    original = tiny_llama("llama3", rope_parameters={**LLAMA3, "factor": factor})
    factors = llama3_factors(16, 500000.0, factor)
    assert len({round(float(f), 3) for f in factors}) > 2  # one of them lies in the smooth part
    path = write_gguf(original, tmp_path / "tiny.gguf", rope_factors=factors)
    llama = load_llama(path, torch.float32)
    assert llama.config.rope_parameters == {**LLAMA3, "factor": factor}
    assert torch.equal(logits(llama), logits(original))


def test_linear_scaling_is_kept(tmp_path: Path) -> None:
    scaling = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    original = tiny_llama(rope_parameters=scaling)
    metadata = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    path = write_gguf(original, tmp_path / "tiny.gguf", metadata=metadata)
    assert torch.equal(logits(load_llama(path, torch.float32)), logits(original))
    assert not torch.equal(logits(original), logits(tiny_llama()))


@pytest.mark.parametrize(
    ("metadata", "original_length", "key"),
    [
        ({}, 4096, "rope_freqs.weight"),
        ({"llama.rope.scaling.type": "yarn"}, None, "llama.rope.scaling.type"),
        ({"llama.expert_count": 8}, None, "llama.expert_count"),
        ({"split.count": 2}, None, "split.count"),
        ({"llama.attention.key_length": 32}, None, "llama.rope.dimension_count"),
    ],
)
def test_what_a_llama_does_not_have_is_refused(
    tmp_path: Path, metadata: dict[str, object], original_length: int | None, key: str
) -> None:
    factors = llama3_factors(16, 10000.0, 8.0, original_length) if original_length else None
    path = write_gguf(tiny_llama(), tmp_path / "tiny.gguf", metadata=metadata, rope_factors=factors)
    with pytest.raises(InvalidWeightsError, match=r"tiny\.gguf") as caught:
        open_source(path)
    assert key in caught.value.message
    assert caught.value.fields["key"] == key


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "gemma")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InvalidWeightsError, match=r"other\.gguf has gemma for general\.architecture; expected llama"):
        open_source(tmp_path / "other.gguf")


@pytest.mark.parametrize("size", [3, 200, 100_000])
def test_a_torn_file_is_refused(tmp_path: Path, size: int) -> None:
    path = write_gguf(tiny_llama(), tmp_path / "tiny.gguf")
    whole = path.read_bytes()
    assert len(whole) > size
    path.write_bytes(whole[:size])
    with pytest.raises(InvalidWeightsError, match=r"tiny\.gguf cannot be read as GGUF"):
        open_source(path)


def test_the_tokenizer_comes_from_the_metadata(tmp_path: Path) -> None:
    base = load_base(write_gguf(tiny_llama(), tmp_path / "tiny.gguf"), torch.float32)
    assert base.tokenizer.convert_tokens_to_ids(["a", "g"]) == [1, 7]
