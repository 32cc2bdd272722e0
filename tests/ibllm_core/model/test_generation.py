import torch

from ibllm_core.data.dataset import Dataset
from ibllm_core.model.generation import generate
from ibllm_core.model.imagebind_llm import ImageBindLLM

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14]]
NO_END = 63


def test_a_batch_equals_one_at_a_time(open_model: ImageBindLLM, dataset: Dataset) -> None:
    features = torch.from_numpy(dataset.features)
    together = generate(open_model, PROMPTS, features, max_new_tokens=6, eos_token=NO_END)
    alone = [
        generate(open_model, [prompt], features[index : index + 1], max_new_tokens=6, eos_token=NO_END)[0]
        for index, prompt in enumerate(PROMPTS)
    ]
    assert together == alone
    assert all(len(answer) == 6 for answer in together)


def test_the_cache_changes_nothing(open_model: ImageBindLLM, dataset: Dataset) -> None:
    """Each token equals the greedy choice of a whole forward over all that stands before it."""
    features = torch.from_numpy(dataset.features[:1])
    answer = generate(open_model, [PROMPTS[0]], features, max_new_tokens=4, eos_token=NO_END)[0]
    text = list(PROMPTS[0])
    for token in answer:
        with open_model.injector.use(open_model.layer_vectors(features), torch.zeros(1, 1, dtype=torch.long)):
            logits = open_model.llama(input_ids=torch.tensor([text])).logits
        assert int(logits[0, -1].argmax()) == token
        text.append(token)


def test_stops_at_the_end_token_and_leaves_it_out(open_model: ImageBindLLM, dataset: Dataset) -> None:
    features = torch.from_numpy(dataset.features[:1])
    answer = generate(open_model, [PROMPTS[0]], features, max_new_tokens=6, eos_token=NO_END)[0]
    first = generate(open_model, [PROMPTS[0]], features, max_new_tokens=6, eos_token=answer[0])[0]
    assert first == []
