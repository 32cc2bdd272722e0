from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ibllm_core.bases.formats import open_source
from ibllm_core.bases.load import load_base, load_llama, weights_sha256
from ibllm_core.bases.write import write_folder
from ibllm_core.errors import InvalidWeightsError
from tests.ibllm_core.bases.files import (
    SHAPES,
    logits,
    tiny_llama,
    write_gguf,
    write_meta,
    write_pieces,
    write_tokenizer,
)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_written_folder_is_the_same_base_in_other_shards(tmp_path: Path, shape: str) -> None:
    original = tiny_llama(shape, torch.bfloat16)
    original.save_pretrained(tmp_path / "source")
    write_tokenizer(tmp_path / "source")
    sha256 = write_folder(open_source(tmp_path / "source"), tmp_path / "target", shard_bytes=30_000)
    assert sha256 == weights_sha256(tmp_path / "source") == weights_sha256(tmp_path / "target")
    assert len(list((tmp_path / "target").glob("model-*-of-*.safetensors"))) > 2
    assert not list((tmp_path / "target").glob("*.part"))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "target", dtype="auto")
    assert theirs.dtype == torch.bfloat16
    assert torch.equal(logits(theirs), logits(original))


def test_metas_folder_keeps_dtype_hash_and_tokenizer(tmp_path: Path) -> None:
    source = write_meta(tiny_llama(dtype=torch.float16), tmp_path / "meta", num_shards=2)
    write_pieces(source)
    sha256 = write_folder(open_source(source), tmp_path / "target")
    assert sha256 == weights_sha256(source) == weights_sha256(tmp_path / "target")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "target")
    assert tokenizer("  the cat")["input_ids"] == load_base(source, torch.float16).tokenizer("  the cat")["input_ids"]


def test_a_dtype_that_is_asked_for_is_written_and_hashed(tmp_path: Path) -> None:
    path = write_gguf(tiny_llama(), tmp_path / "tiny.gguf", GGMLQuantizationType.Q8_0)
    sha256 = write_folder(open_source(path), tmp_path / "target", torch.bfloat16)
    assert sha256 == weights_sha256(tmp_path / "target") != weights_sha256(path)
    assert {weight.dtype for weight in load_file(tmp_path / "target" / "model.safetensors").values()} == {
        torch.bfloat16
    }
    ours, theirs = load_llama(path, torch.bfloat16), AutoModelForCausalLM.from_pretrained(tmp_path / "target")
    assert torch.equal(logits(ours), logits(theirs))


def test_a_folder_with_files_in_it_is_left_alone(tmp_path: Path) -> None:
    path = write_gguf(tiny_llama(), tmp_path / "tiny.gguf")
    with pytest.raises(InvalidWeightsError, match="is not empty"):
        write_folder(open_source(path), tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_begun_and_failed_is_no_base(tmp_path: Path) -> None:
    llama = tiny_llama()
    llama.model.norm.weight[0] = torch.nan
    path = write_gguf(llama, tmp_path / "tiny.gguf")
    with pytest.raises(InvalidWeightsError, match=r"output_norm\.weight"):
        write_folder(open_source(path), tmp_path / "target", shard_bytes=30_000)
    with pytest.raises(InvalidWeightsError, match="is no base model"):
        open_source(tmp_path / "target")
