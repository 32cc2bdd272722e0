from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from ibllm_core.contract.chat import DEFAULT_MAX_TOKENS, ChatRequest
from ibllm_core.errors import InvalidPromptError
from ibllm_core.formats.sample import Turn
from ibllm_core.prompts import Prompter
from workers.serve.conversation import Conversation, answer_limit, conversation_of, prompt_tokens

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}


def request(*said: tuple[str, Any], **fields: Any) -> ChatRequest:
    messages = [{"role": role, "content": content} for role, content in said]
    return ChatRequest.model_validate({"model": "m", "messages": messages, **fields})


def test_the_prompt_is_what_training_set_before_the_last_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    asked = request(
        ("developer", "the dog is red ."), ("user", "what is this ?"), ("assistant", "a cat ."), ("user", "the mat ?")
    )
    turns = [Turn(instruction="what is this ?", answer="a cat ."), Turn(instruction="the mat ?", answer="red")]
    trained = Prompter(tokenizer=tokenizer, template="alpaca").sample(turns, system="the dog is red .")
    start, _ = trained.labels[-1]
    assert prompt_tokens(conversation_of(asked), tokenizer, "alpaca") == trained.tokens[:start]


def test_a_single_question_is_the_prompt_of_generation(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = Prompter(tokenizer=tokenizer, template="short").prompt("what is this ?")
    assert prompt_tokens(conversation_of(request(("user", "what is this ?"))), tokenizer, "short") == prompt


def test_neighbours_of_one_role_are_joined() -> None:
    asked = request(("system", "a"), ("developer", "b"), ("user", [IMAGE]), ("user", "what ?"), ("user", "the mat ?"))
    (turn,) = conversation_of(asked).turns
    assert (turn.instruction, conversation_of(asked).system) == ("what ?\nthe mat ?", "a\nb")


def test_a_medium_alone_is_a_question_to_a_captioning_model_only(tokenizer: PreTrainedTokenizerFast) -> None:
    alone = conversation_of(request(("user", [IMAGE])))
    assert prompt_tokens(alone, tokenizer, "caption")
    with pytest.raises(InvalidPromptError, match="ask something"):
        prompt_tokens(alone, tokenizer, "short")


def test_a_captioning_model_answers_nothing_else(tokenizer: PreTrainedTokenizerFast) -> None:
    asked = Conversation(turns=(Turn(instruction="what is this ?", answer="a"),), system="")
    with pytest.raises(InvalidPromptError, match="template 'caption' always asks"):
        prompt_tokens(asked, tokenizer, "caption")


@pytest.mark.parametrize(
    ("positions", "context", "fields", "limit"),
    [(10, 256, {"max_tokens": 246}, 246), (10, 256, {}, 246), (10, 8192, {}, DEFAULT_MAX_TOKENS)],
)
def test_an_answer_may_fill_the_context(positions: int, context: int, fields: dict[str, Any], limit: int) -> None:
    assert answer_limit(request(("user", "?"), **fields), positions, context) == limit


@pytest.mark.parametrize(("positions", "fields"), [(10, {"max_tokens": 247}), (256, {}), (400, {})])
def test_nothing_is_cut_to_fit(positions: int, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidPromptError, match="context is 256") as refused:
        answer_limit(request(("user", "?"), **fields), positions, 256)
    assert refused.value.fields["code"] == "context_length_exceeded"
