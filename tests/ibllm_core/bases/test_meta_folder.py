from pathlib import Path

import pytest
import torch

from ibllm_core.bases.formats import open_source
from ibllm_core.bases.load import load_base, load_llama, weights_sha256
from tests.ibllm_core.bases.files import logits, tiny_llama, write_meta, write_pieces


@pytest.mark.parametrize("shape", ["plain", "grouped"])
@pytest.mark.parametrize("num_shards", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_and_hash_are_those_of_the_hugging_face_folder(
    tmp_path: Path, shape: str, num_shards: int, dtype: torch.dtype
) -> None:
    original = tiny_llama(shape, dtype)
    original.save_pretrained(tmp_path / "hf", max_shard_size="60KB")
    folder = write_meta(original, tmp_path / "meta", num_shards=num_shards)
    llama = load_llama(folder, dtype)
    assert torch.equal(logits(llama), logits(original))
    assert weights_sha256(folder) == weights_sha256(tmp_path / "hf")
    ours, theirs = llama.config.to_dict(), original.config.to_dict()
    different = {key for key in ours if ours[key] != theirs.get(key)}
    assert different <= {"max_position_embeddings", "architectures"}


def test_an_embedding_split_by_rows_as_in_llama_3_is_recognised(tmp_path: Path) -> None:
    original = tiny_llama()
    folder = write_meta(original, tmp_path / "meta", num_shards=2, embedding_axis=0)
    assert torch.equal(logits(load_llama(folder, torch.float32)), logits(original))


@pytest.mark.parametrize(
    ("dtype", "settings", "extra", "context"),
    [
        (torch.float16, {}, "", 2048),
        (torch.bfloat16, {}, "", 4096),
        (torch.bfloat16, {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}, "", 8192),
        (torch.bfloat16, {"rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}}, "", 16384),
        (torch.float16, {}, '"max_seq_len": 1024, ', 1024),
    ],
)
def test_the_context_length_is_told_from_the_generation_of_the_model(
    tmp_path: Path, dtype: torch.dtype, settings: dict[str, object], extra: str, context: int
) -> None:
    folder = write_meta(tiny_llama(dtype=dtype, **settings), tmp_path / "meta")
    params = folder / "params.json"
    params.write_text(params.read_text().replace("{", "{" + extra, 1))
    assert open_source(folder).config.max_position_embeddings == context


def test_a_base_comes_with_its_sentencepiece_tokenizer(tmp_path: Path) -> None:
    folder = write_meta(tiny_llama(), tmp_path / "meta")
    write_pieces(folder)
    base = load_base(folder, torch.bfloat16)
    assert base.sha256 == weights_sha256(folder)
    assert base.tokenizer("the cat")["input_ids"][0] == base.tokenizer.bos_token_id == 1
    assert base.llama.dtype == torch.bfloat16
