import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ibllm_core.bases.tokenizer import sentencepiece_tokenizer
from ibllm_core.errors import InvalidPromptError
from ibllm_core.formats.sample import Turn
from ibllm_core.prompts import Prompter
from tests.conftest import word_tokenizer
from tests.ibllm_core.bases.files import write_pieces

CHATML = (
    "{% for m in messages %}<s>{{ m.role }} : {{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant : {% endif %}"
)
text_of = st.text(st.sampled_from("what is this ? a cat dog . mat \n"), min_size=1).filter(lambda t: t.strip())


def one_turn(instruction: str, answer: str) -> list[Turn]:
    return [Turn(instruction=instruction, answer=answer)]


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
        sample = prompter.sample(one_turn(instruction, answer))
        assert sample.tokens[: sample.labels[0][0]] == prompt
        assert sample.tokens[-1] == prompter.end_token
        assert len(sample.tokens) > sample.labels[0][0] + 1


def test_llama_gets_its_beginning_and_one_space_before_the_answer(llama_tokenizer: PreTrainedTokenizerBase) -> None:
    prompter = Prompter(tokenizer=llama_tokenizer, template="short")
    sample = prompter.sample(one_turn("what is this?", " a cat "))
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
    Prompter(tokenizer=tokenizer, template="short").sample(one_turn("what?", "a cat"))
    assert " a cat" in seen


def test_a_chat_template_ends_answers_with_its_own_end_of_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = CHATML
    tokenizer.eos_token = "."
    prompter = Prompter(tokenizer=tokenizer, template="chat")
    end_of_turn = tokenizer.convert_tokens_to_ids("</s>")
    sample = prompter.sample(one_turn("what is this ?", "a cat"))
    assert sample.tokens[-3:] == [*tokenizer.convert_tokens_to_ids(["a", "cat"]), end_of_turn]
    assert prompter.end_tokens == {end_of_turn, tokenizer.eos_token_id}
    assert tokenizer.decode(prompter.prompt("what is this ?")).count("<s>") == 2  # the template's own, none besides


def test_a_base_without_chat_template_says_so(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InvalidPromptError, match="no chat template: choose template 'alpaca'"):
        Prompter(tokenizer=tokenizer, template="chat").prompt("what?")


def test_an_empty_answer_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InvalidPromptError, match="the answer is empty"):
        Prompter(tokenizer=tokenizer, template="alpaca").sample(one_turn("what?", " \n"))


@pytest.mark.parametrize("where", ["instruction", "answer"])
def test_special_tokens_in_a_text_are_refused(tokenizer: PreTrainedTokenizerFast, where: str) -> None:
    words = {"instruction": "what is this ?", "answer": "a cat", where: "a </s> cat"}
    with pytest.raises(InvalidPromptError, match="holds '</s>', which the base's tokenizer takes for a token"):
        Prompter(tokenizer=tokenizer, template="short").sample(one_turn(**words))


def test_a_chat_template_may_set_space_before_and_after_the_answer(llama_tokenizer: PreTrainedTokenizerBase) -> None:
    """As Llama 2's does."""
    llama_tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
    )
    prompter = Prompter(tokenizer=llama_tokenizer, template="chat")
    sample = prompter.sample(one_turn("what is this?", "a cat"))
    assert sample.tokens[-1] == prompter.end_token == llama_tokenizer.eos_token_id
    assert sample.tokens.count(llama_tokenizer.bos_token_id) == 1


def test_a_chat_template_without_an_end_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    with pytest.raises(InvalidPromptError, match="no special token ends the answer"):
        Prompter(tokenizer=tokenizer, template="chat").sample(one_turn("what?", "a cat"))


def test_a_token_that_is_only_marked_special_ends_a_turn_too(tokenizer: PreTrainedTokenizerFast) -> None:
    """As Llama 3's ``<|eot_id|>``, which has no role in its tokenizer's configuration."""
    tokenizer.add_tokens(AddedToken("<|eot|>", special=True))
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} <|eot|> {% endfor %}"
    prompter = Prompter(tokenizer=tokenizer, template="chat")
    assert prompter.sample(one_turn("what ?", "a cat")).tokens[-1] == tokenizer.convert_tokens_to_ids("<|eot|>")
    with pytest.raises(InvalidPromptError, match=r"holds '<\|eot\|>'"):
        prompter.prompt("what <|eot|> is")


TWO_TURNS = [
    Turn(instruction="what is this ?", answer="a cat"),
    Turn(instruction="on the mat ?", answer="a red mat ."),
]


def spans_of(prompter: Prompter, turns: list[Turn]) -> tuple[str, list[str]]:
    """All of a sample as text, and each of its answers as it is labelled."""
    sample = prompter.sample(turns)
    return prompter.tokenizer.decode(sample.tokens), [
        prompter.tokenizer.decode(sample.tokens[start:end]) for start, end in sample.labels
    ]


@pytest.mark.parametrize("template", ["short", "chat"])
def test_every_answer_of_a_conversation_is_learned_and_nothing_else(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    tokenizer.chat_template = CHATML
    prompter = Prompter(tokenizer=tokenizer, template=template)
    _, answers = spans_of(prompter, TWO_TURNS)
    assert answers == ["a cat </s>", "a red mat . </s>"]
    whole = prompter.sample(TWO_TURNS).tokens
    first = prompter.sample(TWO_TURNS[:1]).tokens
    assert whole[: len(first)] == first


def test_a_chat_conversation_reads_as_the_template_writes_it(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = CHATML
    text, _ = spans_of(Prompter(tokenizer=tokenizer, template="chat"), TWO_TURNS)
    messages = [
        message
        for turn in TWO_TURNS
        for message in (
            {"role": "user", "content": turn.instruction},
            {"role": "assistant", "content": turn.answer},
        )
    ]
    written = tokenizer.apply_chat_template(messages, tokenize=False).rstrip()
    assert text == tokenizer.decode(tokenizer.encode(written, add_special_tokens=False))


def test_spaces_that_a_template_sets_round_answers_are_kept_between_turns(
    llama_tokenizer: PreTrainedTokenizerBase,
) -> None:
    llama_tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
    )
    sample = Prompter(tokenizer=llama_tokenizer, template="chat").sample(TWO_TURNS)
    assert len(sample.labels) == 2
    assert sample.tokens.count(llama_tokenizer.bos_token_id) == 2


def test_a_system_message_stands_before_the_first_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    prompter = Prompter(tokenizer=tokenizer, template="short")
    sample = prompter.sample(TWO_TURNS, system="the red dog .")
    assert sample.tokens[:4] == prompter.tokenizer.convert_tokens_to_ids(["the", "red", "dog", "."])
    assert sample.tokens[4:] == prompter.sample(TWO_TURNS).tokens


def test_captions_have_one_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [Turn(instruction="", answer="a cat"), Turn(instruction="", answer="a dog")]
    with pytest.raises(InvalidPromptError, match="room for one turn only"):
        Prompter(tokenizer=tokenizer, template="caption").sample(turns)


def test_a_chat_template_that_rewrites_earlier_turns_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{{ messages | length }}" + CHATML
    with pytest.raises(InvalidPromptError, match="its prompt changes once the answer is there"):
        Prompter(tokenizer=tokenizer, template="chat").sample(TWO_TURNS)
    tokenizer.chat_template = "{% if messages | length > 2 %}the {% endif %}" + CHATML
    with pytest.raises(InvalidPromptError, match="rewrites earlier turns once there are more"):
        Prompter(tokenizer=tokenizer, template="chat").sample(TWO_TURNS)
