from typing import Any

import pytest
import torch

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.sampling import Sampling
from ibllm_core.errors import InvalidPromptError
from ibllm_core.model.generation import Decoder, Request, generate
from ibllm_core.model.imagebind_llm import ImageBindLLM
from tests.conftest import FEATURE_DIM
from tests.ibllm_core.model.exact import FUSIONS, exact_model, plain_config, plain_weights
from tests.reference import plain

NO_END: frozenset[int] = frozenset()
GREEDY = Sampling(max_new_tokens=6)
DRAWN = Sampling(max_new_tokens=6, temperature=1.3, top_p=0.8)


def requests() -> list[Request]:
    """Different lengths, different media, one of them text alone."""
    features = torch.randn(3, FEATURE_DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    prompts = [[5, 6, 7], [8], [10, 11, 12, 13, 14], [5, 6, 7]]
    media = [features[0], features[1], None, features[2]]
    return [Request(prompt=p, feature=f, seed=i) for i, (p, f) in enumerate(zip(prompts, media, strict=True))]


@pytest.fixture(params=FUSIONS, ids=str)
def any_model(request: Any) -> ImageBindLLM:
    return exact_model(AdapterConfig(fusion=request.param), "stage2").eval()


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_batch_equals_one_at_a_time(any_model: ImageBindLLM, sampling: Sampling) -> None:
    together = generate(any_model, requests(), sampling, NO_END)
    assert together == [generate(any_model, [request], sampling, NO_END)[0] for request in requests()]
    assert all(len(answer) == 6 for answer in together)
    assert together[0] != together[3]  # the same prompt with other media


def test_each_token_is_the_greedy_choice_of_the_plain_implementation(any_model: ImageBindLLM) -> None:
    """Neither the cache nor the padding changes anything."""
    config, weights = plain_config(any_model), plain_weights(any_model)
    for request, answer in zip(requests(), generate(any_model, requests(), GREEDY, NO_END), strict=True):
        text = list(request.prompt)
        for token in answer[:3]:
            assert int(plain.logits(weights, config, text, request.feature)[-1].argmax()) == token
            text.append(token)


def test_the_seed_decides_what_is_drawn() -> None:
    model = exact_model(AdapterConfig()).eval()
    several = [Request(prompt=[5, 6], seed=seed) for seed in range(8)]
    drawn = generate(model, several, DRAWN, NO_END)
    assert drawn == generate(model, several, DRAWN, NO_END)
    assert len({tuple(answer) for answer in drawn}) > 4


def test_draws_follow_the_probabilities_of_the_likeliest() -> None:
    """2,000 first tokens against temperature and top-p written out."""
    model = exact_model(AdapterConfig()).eval()
    sampling = Sampling(max_new_tokens=1, temperature=1.5, top_p=0.6)
    logits = plain.logits(plain_weights(model), plain_config(model), [5, 6], None)[-1]
    probabilities = torch.softmax(logits / 1.5, dim=0).tolist()
    kept: dict[int, float] = {}
    for token in sorted(range(len(probabilities)), key=lambda t: -probabilities[t]):
        if sum(kept.values()) < 0.6:
            kept[token] = probabilities[token]
    several = [Request(prompt=[5, 6], seed=seed) for seed in range(2000)]
    drawn = [answer[0] for answer in generate(model, several, sampling, NO_END)]
    assert set(drawn) <= set(kept)
    for token, probability in kept.items():
        expected = probability / sum(kept.values())
        assert drawn.count(token) / 2000 == pytest.approx(expected, abs=4 * (expected / 2000) ** 0.5)


def test_a_tiny_top_p_is_greedy() -> None:
    model = exact_model(AdapterConfig()).eval()
    narrow = Sampling(max_new_tokens=4, temperature=5.0, top_p=1e-9)
    greedy = Sampling(max_new_tokens=4)
    assert generate(model, requests(), narrow, NO_END) == generate(model, requests(), greedy, NO_END)


def test_stops_at_an_end_token_and_leaves_it_out() -> None:
    model = exact_model(AdapterConfig()).eval()
    whole = generate(model, requests(), GREEDY, NO_END)
    end = whole[0][2]
    cut = generate(model, requests(), GREEDY, frozenset({end}))
    assert cut == [answer[: answer.index(end)] if end in answer else answer for answer in whole]


def test_an_answer_may_fill_the_context_to_the_last_token() -> None:
    model = exact_model(AdapterConfig(), max_position_embeddings=12).eval()
    assert len(generate(model, [Request(prompt=[1, 2, 3, 4, 5, 6])], GREEDY, NO_END)[0]) == 6
    with pytest.raises(InvalidPromptError, match="context is 12"):
        generate(model, [Request(prompt=[1, 2, 3, 4, 5, 6, 7])], GREEDY, NO_END)


def test_stop_strings_are_not_ignored() -> None:
    with pytest.raises(InvalidPromptError, match="stop strings need the text"):
        generate(exact_model(AdapterConfig()), requests(), Sampling(stop=("a",)), NO_END)


def test_media_is_computed_once_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = exact_model(AdapterConfig()).eval(), []
    forward = model.bind_network.forward
    monkeypatch.setattr(model.bind_network, "forward", lambda x: calls.append(len(x)) or forward(x))
    decoder = Decoder(model, requests(), GREEDY)
    for _ in range(5):
        decoder.step()
    assert calls == [3]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(prompt=[]), "prompt 1 is empty"),
        (Request(prompt=[1] * 251), "prompt 1 has 251 tokens.*context is 256"),
        (Request(prompt=[1], feature=torch.zeros(FEATURE_DIM + 1)), r"prompt 1 has shape \(13,\).*gives \(12,\)"),
        (Request(prompt=[1], feature=torch.full((FEATURE_DIM,), float("nan"))), "prompt 1 holds NaN"),
    ],
)
def test_bad_requests_are_refused_by_number(request_: Request, message: str, open_model: ImageBindLLM) -> None:
    with pytest.raises(InvalidPromptError, match=message):
        generate(open_model, [Request(prompt=[1, 2]), request_], GREEDY, NO_END)
