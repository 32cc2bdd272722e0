import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ibllm_core.bases.tokenizer import sentencepiece_tokenizer
from ibllm_core.data.prompts import Prompter
from ibllm_core.errors import InvalidPromptError
from tests.conftest import word_tokenizer
from tests.ibllm_core.bases.files import write_pieces

CHATML = (
    "{% for m in messages %}<s>{{ m.role }} : {{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant : {% endif %}"
)
text_of = st.text(st.sampled_from("what is this ? a cat dog . mat \n"), min_size=1).filter(lambda t: t.strip())


@pytest.fixture(scope="module")
def llama_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """A SentencePiece tokenizer as LLaMA's: it sets a space before every text, and ``<s>`` before that."""
    folder = tmp_path_factory.mktemp("tokenizer")
    return sentencepiece_tokenizer(write_pieces(folder))


@given(text_of, text_of, text_of)
def test_prompt_tokens_never_depend_on_the_answer(instruction: str, one: str, other: str) -> None:
    prompter = Prompter(tokenizer=word_tokenizer(), template="short")
    prompt = prompter.prompt(instruction)
    for answer in (one, other):
        sample = prompter.sample(instruction, answer)
        assert sample.tokens[: sample.prompt_length] == prompt
        assert sample.tokens[-1] == prompter.end_token
        assert len(sample.tokens) > sample.prompt_length + 1


def test_llama_gets_its_beginning_and_one_space_before_the_answer(llama_tokenizer: PreTrainedTokenizerBase) -> None:
    prompter = Prompter(tokenizer=llama_tokenizer, template="short")
    sample = prompter.sample("what is this?", " a cat ")
    assert sample.tokens[0] == llama_tokenizer.bos_token_id
    assert llama_tokenizer.bos_token_id not in sample.tokens[1:]
    assert llama_tokenizer.eos_token_id not in sample.tokens[:-1]
    assert sample.tokens[-1] == llama_tokenizer.eos_token_id
    whole = llama_tokenizer.decode(sample.tokens, skip_special_tokens=True)
    assert whole.endswith(": a cat")


def test_words_stand_apart_where_the_tokenizer_sets_no_space(tokenizer: PreTrainedTokenizerFast) -> None:
    seen: list[str] = []
    encode = tokenizer.encode

    def noting(text: str, **options: bool) -> list[int]:
        seen.append(text)
        return encode(text, **options)

    tokenizer.encode = noting
    Prompter(tokenizer=tokenizer, template="short").sample("what?", "a cat")
    assert " a cat" in seen


def test_a_chat_template_ends_answers_with_its_own_end_of_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = CHATML
    tokenizer.eos_token = "."
    prompter = Prompter(tokenizer=tokenizer, template="chat")
    end_of_turn = tokenizer.convert_tokens_to_ids("</s>")
    sample = prompter.sample("what is this ?", "a cat")
    assert sample.tokens[-3:] == [*tokenizer.convert_tokens_to_ids(["a", "cat"]), end_of_turn]
    assert prompter.end_tokens == {end_of_turn, tokenizer.eos_token_id}
    assert tokenizer.decode(prompter.prompt("what is this ?")).count("<s>") == 2  # the template's own, none besides


def test_a_base_without_chat_template_says_so(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InvalidPromptError, match="no chat template: choose template 'alpaca'"):
        Prompter(tokenizer=tokenizer, template="chat").prompt("what?")


def test_an_empty_answer_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InvalidPromptError, match="the answer is empty"):
        Prompter(tokenizer=tokenizer, template="alpaca").sample("what?", " \n")


@pytest.mark.parametrize("where", ["instruction", "answer"])
def test_special_tokens_in_a_text_are_refused(tokenizer: PreTrainedTokenizerFast, where: str) -> None:
    words = {"instruction": "what is this ?", "answer": "a cat", where: "a </s> cat"}
    with pytest.raises(InvalidPromptError, match="holds '</s>', which the base's tokenizer takes for a token"):
        Prompter(tokenizer=tokenizer, template="short").sample(**words)


def test_a_chat_template_may_set_space_before_and_after_the_answer(llama_tokenizer: PreTrainedTokenizerBase) -> None:
    """As Llama 2's does."""
    llama_tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
    )
    prompter = Prompter(tokenizer=llama_tokenizer, template="chat")
    sample = prompter.sample("what is this?", "a cat")
    assert sample.tokens[-1] == prompter.end_token == llama_tokenizer.eos_token_id
    assert sample.tokens.count(llama_tokenizer.bos_token_id) == 1


def test_a_chat_template_without_an_end_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    with pytest.raises(InvalidPromptError, match="no special token ends the answer"):
        Prompter(tokenizer=tokenizer, template="chat").sample("what?", "a cat")


def test_a_token_that_is_only_marked_special_ends_a_turn_too(tokenizer: PreTrainedTokenizerFast) -> None:
    """As Llama 3's ``<|eot_id|>``, which has no role in its tokenizer's configuration."""
    tokenizer.add_tokens(AddedToken("<|eot|>", special=True))
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} <|eot|> {% endfor %}"
    prompter = Prompter(tokenizer=tokenizer, template="chat")
    assert prompter.sample("what ?", "a cat").tokens[-1] == tokenizer.convert_tokens_to_ids("<|eot|>")
    with pytest.raises(InvalidPromptError, match=r"holds '<\|eot\|>'"):
        prompter.prompt("what <|eot|> is")
