"""Whatever is wrong with a base is said with the file, the key and a remedy, and nothing is returned."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ibllm_core.bases.formats import open_source
from ibllm_core.bases.load import load_llama, load_tokenizer
from ibllm_core.errors import InvalidWeightsError
from tests.ibllm_core.bases.files import tiny_llama, write_gguf, write_meta, write_pieces, write_tokenizer

NORM = "model.layers.1.input_layernorm.weight"
HEAD = "lm_head.weight"


def refusal(path: Path, file: Path | None = None, key: str | None = None) -> str:
    """The message of the error that loading raises, after checking what it names."""
    with pytest.raises(InvalidWeightsError) as caught:
        load_llama(path, torch.float32)
    error = caught.value
    assert str(file or path) in error.message
    assert error.fields["file"] == str(file or path)
    assert error.fields["expected"]
    if key:
        assert key in error.message
        assert error.fields["key"] == key
    assert pickle.loads(pickle.dumps(error)).fields == error.fields
    return error.message


def hf_folder(folder: Path, change: Callable[[dict[str, Tensor]], object] = lambda weights: None) -> Path:
    tiny_llama().save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_missing_key(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path, lambda weights: weights.pop(NORM))
    assert "lacks" in refusal(folder, key=NORM)


def test_an_unknown_key(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path, lambda weights: weights.update({"model.extra.weight": torch.ones(2)}))
    assert "does not have" in refusal(folder, folder / "model.safetensors", "model.extra.weight")


def test_a_key_that_two_shards_hold(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path, max_shard_size="60KB")
    first, second = sorted(tmp_path.glob("*.safetensors"))[:2]
    key, weight = next(iter(load_file(first).items()))
    save_file(load_file(second) | {key: weight}, second)
    assert "twice" in refusal(tmp_path, second, key)


def test_a_wrong_shape(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path, lambda weights: weights.update({NORM: torch.ones(63)}))
    message = refusal(folder, folder / "model.safetensors", NORM)
    assert "[63]" in message
    assert "[64]" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", [NORM, HEAD])
def test_a_number_that_is_not_finite(tmp_path: Path, value: float, key: str) -> None:
    folder = hf_folder(tmp_path, lambda weights: weights[key].view(-1)[-1].fill_(value))
    assert "NaN" in refusal(folder, folder / "model.safetensors", key)


def test_a_number_beyond_the_dtype_that_was_chosen(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path, lambda weights: weights[NORM][3].fill_(70000.0))
    load_llama(folder, torch.bfloat16)
    with pytest.raises(InvalidWeightsError, match="load it in bfloat16") as caught:
        load_llama(folder, torch.float16)
    assert NORM in caught.value.message


def test_a_tied_head_that_differs(tmp_path: Path) -> None:
    tiny_llama("tied").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(load_file(file) | {HEAD: torch.ones(400, 64)}, file)
    assert "tie_word_embeddings" in refusal(tmp_path, file, HEAD)


@pytest.mark.parametrize("size", [0, 4, 300, 30_000])
def test_a_torn_safetensors_file(tmp_path: Path, size: int) -> None:
    folder = hf_folder(tmp_path)
    file = folder / "model.safetensors"
    assert file.stat().st_size > size
    os.truncate(file, size)
    assert "download the file again" in refusal(folder, file)


def test_a_file_torn_after_it_was_opened(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path)
    source = open_source(folder)
    os.truncate(folder / "model.safetensors", 30_000)
    with pytest.raises(InvalidWeightsError, match=r"model\.safetensors"):
        load_llama(source, torch.float32)


def test_a_shard_that_the_index_names_and_nobody_copied(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path, max_shard_size="60KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    keys = sorted(load_file(shard))
    shard.unlink()
    refusal(tmp_path, shard, keys[0])


def test_integers_where_weights_should_be(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path, lambda weights: weights.update({NORM: torch.ones(64, dtype=torch.int8)}))
    assert "I8" in refusal(folder, folder / "model.safetensors", NORM)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"architectures": ["MistralForCausalLM"], "model_type": "mistral"}, "architectures"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"hidden_size": 63}, None),
        ({"hidden_size": "many"}, None),
    ],
)
def test_a_config_of_something_else(tmp_path: Path, change: dict[str, object], key: str | None) -> None:
    file = hf_folder(tmp_path) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refusal(tmp_path, file, key)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_config_that_is_missing_or_no_json(tmp_path: Path, content: str | None) -> None:
    file = hf_folder(tmp_path) / "config.json"
    file.unlink() if content is None else file.write_text(content)
    refusal(tmp_path, file)


def test_pickles_of_hugging_face(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "pytorch_model.bin")
    assert "save_pretrained" in refusal(tmp_path)


def test_a_place_where_nothing_is(tmp_path: Path) -> None:
    assert "params.json" in refusal(tmp_path)
    assert "params.json" in refusal(tmp_path / "nowhere")


class Trap:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    folder = write_meta(tiny_llama(), tmp_path / "meta")
    file = folder / "consolidated.00.pth"
    torch.save({"norm.weight": Trap(tmp_path / "ran")}, file)
    torch.load(file, weights_only=False)
    (tmp_path / "ran").rmdir()  # the trap works
    assert "could run code" in refusal(folder, file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torn_shard_of_meta(tmp_path: Path, legacy: bool) -> None:
    folder = write_meta(tiny_llama(), tmp_path / "meta")
    file = folder / "consolidated.00.pth"
    if legacy:
        torch.save(torch.load(file), file, _use_new_zipfile_serialization=False)
    else:
        os.truncate(file, 30_000)
    refusal(folder, file)


def test_a_shard_of_meta_torn_after_it_was_opened(tmp_path: Path) -> None:
    folder = write_meta(tiny_llama(), tmp_path / "meta")
    source = open_source(folder)
    os.truncate(folder / "consolidated.00.pth", 30_000)
    with pytest.raises(InvalidWeightsError, match=r"consolidated\.00\.pth ends in the middle of .*\.weight"):
        load_llama(source, torch.float32)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"use_scaled_rope": True}, "use_scaled_rope"),
        ({"dim": None}, "dim"),
        ({"n_heads": 7}, "n_heads"),
    ],
)
def test_params_that_do_not_describe_the_model(tmp_path: Path, change: dict[str, object], key: str) -> None:
    file = write_meta(tiny_llama(), tmp_path / "meta") / "params.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refusal(file.parent, file, key)


def test_a_folder_of_meta_without_params(tmp_path: Path) -> None:
    folder = write_meta(tiny_llama(), tmp_path / "meta")
    (folder / "params.json").unlink()
    refusal(folder, folder / "params.json")


def test_a_folder_of_meta_that_lacks_its_first_or_its_last_shard(tmp_path: Path) -> None:
    folder = write_meta(tiny_llama(), tmp_path / "first", num_shards=2)
    (folder / "consolidated.00.pth").unlink()
    refusal(folder, folder / "consolidated.00.pth")
    folder = write_meta(tiny_llama(), tmp_path / "last", num_shards=2)
    (folder / "consolidated.01.pth").unlink()
    assert "a shard is missing" in refusal(folder, folder / "consolidated.00.pth", "tok_embeddings.weight")


def test_shards_of_meta_with_different_keys(tmp_path: Path) -> None:
    folder = write_meta(tiny_llama(), tmp_path / "meta", num_shards=2)
    file = folder / "consolidated.01.pth"
    torch.save({k: v for k, v in torch.load(file).items() if k != "output.weight"}, file)
    refusal(folder, file, "output.weight")


@pytest.mark.parametrize("key", ["output.weight", "layers.1.attention.wq.weight", "tok_embeddings.weight"])
def test_a_folder_of_meta_that_lacks_a_tensor(tmp_path: Path, key: str) -> None:
    folder = write_meta(tiny_llama(), tmp_path / "meta")
    file = folder / "consolidated.00.pth"
    torch.save({k: v for k, v in torch.load(file).items() if k != key}, file)
    names = {"output.weight": HEAD, "layers.1.attention.wq.weight": "model.layers.1.self_attn.q_proj.weight"}
    refusal(folder, key=names.get(key, key))


def test_nan_in_meta_and_gguf_names_their_own_key(tmp_path: Path) -> None:
    llama = tiny_llama()
    llama.model.layers[1].self_attn.k_proj.weight[5, 5] = torch.nan
    folder = write_meta(llama, tmp_path / "meta")
    refusal(folder, folder / "consolidated.00.pth", "layers.1.attention.wk.weight")
    refusal(write_gguf(llama, tmp_path / "tiny.gguf"), key="blk.1.attn_k.weight")


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    write_tokenizer(tmp_path, num_tokens=400)
    assert len(load_tokenizer(tmp_path)) == 400
    write_tokenizer(tmp_path, num_tokens=401)
    with pytest.raises(InvalidWeightsError, match=r"has 401 tokens, the embedding only 400 rows"):
        load_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    with pytest.raises(InvalidWeightsError, match="no tokenizer can be loaded"):
        load_tokenizer(tmp_path)
    folder = write_meta(tiny_llama(), tmp_path / "meta")
    with pytest.raises(InvalidWeightsError, match=r"tokenizer\.model is missing"):
        load_tokenizer(folder)


def test_a_tokenizer_of_llama_3_in_metas_folder(tmp_path: Path) -> None:
    folder = write_meta(tiny_llama(), tmp_path / "meta")
    (folder / "tokenizer.model").write_text("IQ== 0\nIg== 1\nIw== 2\n")
    with pytest.raises(InvalidWeightsError, match=r"no SentencePiece model .*Hugging Face folder"):
        load_tokenizer(folder)


@pytest.mark.parametrize("settings", [{"model_type": "unigram"}, {"normalization_rule_name": "nmt_nfkc_cf"}])
def test_a_sentencepiece_model_that_would_be_tokenised_otherwise(tmp_path: Path, settings: dict[str, str]) -> None:
    folder = write_meta(tiny_llama(), tmp_path / "meta")
    write_pieces(folder, **settings)
    with pytest.raises(InvalidWeightsError, match="does not reproduce"):
        load_tokenizer(folder)
