from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from ibllm_core.adapter import files
from ibllm_core.adapter.released import write_released
from ibllm_core.bases.load import weights_sha256
from ibllm_core.bind_llm import BindLLM
from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.sampling import Sampling
from ibllm_core.errors import BaseMismatchError, InvalidPromptError, InvalidSpecError
from ibllm_core.model.stages import group_of
from tests.conftest import FEATURE_DIM, tiny_llama
from tests.ibllm_core.adapter.adapters import adapter_of, random_model

SHORT = Sampling(max_new_tokens=8)
PROMPTS = ["what is this ?", "a cat on the mat ?", "is the dog red ?"]


@pytest.fixture
def base(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    tiny_llama(vocab_size=19, num_key_value_heads=4).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def llm(base: Path, tmp_path: Path) -> BindLLM:
    model = random_model(AdapterConfig(fusion="value_gate"), "stage2", vocab_size=19, num_key_value_heads=4)
    files.write(tmp_path / "adapter", adapter_of(model, "stage2", base_sha256=weights_sha256(base)))
    return BindLLM.from_pretrained(base, tmp_path / "adapter")


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(3, FEATURE_DIM, generator=torch.Generator().manual_seed(0))


def test_a_batch_with_media_and_without_equals_one_at_a_time(llm: BindLLM, features: torch.Tensor) -> None:
    mixed = [features[0], None, features[2]]
    together = llm.generate(PROMPTS, mixed, sampling=SHORT)
    assert together == [llm.generate(p, [f], sampling=SHORT)[0] for p, f in zip(PROMPTS, mixed, strict=True)]
    assert llm.generate(PROMPTS, sampling=SHORT)[1] == together[1]
    assert llm.generate(PROMPTS, features.numpy(), sampling=SHORT)[0] == together[0]
    assert llm.generate(PROMPTS[0], features[1], sampling=SHORT) != together[:1]


def test_a_stream_gives_the_same_text_in_pieces(llm: BindLLM, features: torch.Tensor) -> None:
    deltas = list(llm.stream(PROMPTS, features, sampling=SHORT))
    texts = ["".join(d.text for d in deltas if d.index == i).rstrip() for i in range(3)]
    assert texts == llm.generate(PROMPTS, features, sampling=SHORT)
    assert [sum(1 for d in deltas if d.index == i and d.finish) for i in range(3)] == [1, 1, 1]
    assert len(deltas) > 6


def test_a_stop_string_ends_an_answer_before_it(llm: BindLLM, features: torch.Tensor) -> None:
    whole = llm.generate(PROMPTS[0], features[0], sampling=SHORT)[0]
    word = whole.split()[2]
    cut = llm.generate(PROMPTS[0], features[0], sampling=Sampling(max_new_tokens=8, stop=(word,)))[0]
    assert cut == whole[: whole.index(word)].rstrip()


def test_seeds_make_answers_of_one_prompt_differ(llm: BindLLM, features: torch.Tensor) -> None:
    drawn = Sampling(max_new_tokens=8, temperature=1.0)
    same = llm.generate([PROMPTS[0]] * 2, features[[0, 0]], sampling=drawn)
    assert same[0] == same[1]
    other = llm.generate([PROMPTS[0]] * 2, features[[0, 0]], sampling=drawn, seeds=[0, 1])
    assert other[0] == same[0] != other[1]


def test_the_loss_of_a_batch_is_the_mean_over_its_label_tokens(llm: BindLLM, features: torch.Tensor) -> None:
    pairs = [("what is this ?", "a cat ."), ("is the dog red ?", "the dog is on the mat .")]
    batch = llm.batch(pairs, features[:2])
    singles = [llm.batch([pair], features[i : i + 1]) for i, pair in enumerate(pairs)]
    assert batch.num_labels == sum(single.num_labels for single in singles) == 4 + 8
    weighted = sum(llm.loss(single) * single.num_labels for single in singles) / batch.num_labels
    torch.testing.assert_close(llm.loss(batch), weighted)
    llm.loss(batch).backward()
    assert llm.model.fusion.gates.grad is not None


def test_a_released_checkpoint_is_an_adapter_too(base: Path, tmp_path: Path, llm: BindLLM) -> None:
    write_released(tmp_path / "7B.pth", files.read(tmp_path / "adapter"))
    released = BindLLM.from_pretrained(base, tmp_path / "7B.pth", template="short")
    vectors = np.random.default_rng(0).standard_normal((3, FEATURE_DIM)).astype(np.float32)
    assert released.generate(PROMPTS, vectors, sampling=SHORT) == llm.generate(PROMPTS, vectors, sampling=SHORT)


def test_another_base_is_refused(tmp_path: Path, llm: BindLLM, tokenizer: PreTrainedTokenizerFast) -> None:
    other = tiny_llama(vocab_size=19, num_key_value_heads=4)
    with torch.no_grad():
        other.model.norm.weight[0] += 1
    other.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(BaseMismatchError, match="load it with its own base"):
        BindLLM.from_pretrained(tmp_path / "other", tmp_path / "adapter")


def test_prompts_and_features_must_match_in_number(llm: BindLLM, features: torch.Tensor) -> None:
    with pytest.raises(InvalidPromptError, match="2 features for 3 prompts"):
        llm.generate(PROMPTS, features[:2])
    with pytest.raises(InvalidPromptError, match="1 seeds for 3 prompts"):
        llm.generate(PROMPTS, seeds=[1])


def test_what_trains_is_what_the_adapters_stage_trains(llm: BindLLM) -> None:
    trained = {group_of(name) for name, p in llm.model.named_parameters() if p.requires_grad}
    assert trained == {"gates", "lora", "bias", "norm"}
    assert not any(module.training for module in llm.model.modules())


def test_bad_samples_are_refused(llm: BindLLM, features: torch.Tensor) -> None:
    pair = ("what is this ?", "a cat .")
    for pairs, given, message in [
        ([pair], features[:1, :-1], "the adapter's encoder gives"),
        ([pair], features[:1] * float("nan"), "holds NaN"),
        ([("what is this ?", "a cat . " * 200)], features[:1], "context is 256"),
        ([("what ?", " ")], features[:1], "the answer is empty"),
        ([], None, "at least one"),
    ]:
        with pytest.raises(InvalidPromptError, match=message):
            llm.batch(pairs, given)


def test_an_unknown_template_is_refused(tmp_path: Path, base: Path, llm: BindLLM) -> None:
    with pytest.raises(InvalidSpecError, match="no template 'vicuna'"):
        BindLLM.from_pretrained(base, tmp_path / "adapter", template="vicuna")


def test_an_input_has_its_place(llm: BindLLM) -> None:
    alone = llm.generate(["what ?"], sampling=SHORT)
    assert llm.generate(["what ?"], contexts=["the dog is red ."], sampling=SHORT) != alone
