"""What becomes of rows before they are encoded."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.registry import load_encoder
from ibllm_core.formats.fetch import Fetcher
from ibllm_core.formats.local import LocalSource
from ibllm_core.formats.sample import Media, Sample, Turn
from ibllm_core.prompts import Prompter
from tests.conftest import word_tokenizer
from tests.workers.compile.world import picture
from workers.compile.identity import Recipe
from workers.compile.ledger import Ledger
from workers.compile.prepare import Preparer
from workers.compile.rows import Chunk

END = "{% for m in messages %}{{ m.content }} {{ '</s>' if m.role == 'assistant' else '' }} {% endfor %}"


def preparer(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, template: str = "short") -> Preparer:
    tokenizer = tokenizer or word_tokenizer()
    settings = {"encoder_sha256": "e", "tokenizer_sha256": "t", "row_tokens": 64, "context": 64, "media_tokens": 0}
    return Preparer(
        recipe=Recipe(template=template, grey_for_text=False, views=1, **settings),
        prompter=Prompter(tokenizer=tokenizer, template=template),
        encoder=load_encoder("efficientnet-lite0"),
        fetcher=Fetcher(LocalSource.at(folder)),
        claim=Ledger(folder / "ledger.sqlite").claim,
    )


def chunk(*media: Media, system: str = "") -> Chunk:
    row = Sample(row=1, turns=(Turn(instruction="what ?", answer="a cat"),), media=media, system=system)
    return Chunk(input=0, piece=0, first=0, rows=(row,), ends_piece=True)


def test_a_task_that_is_run_again_gives_the_same_bundle(tmp_path: Path) -> None:
    """Ray makes a lost block again by running its task again, and refuses what then comes out otherwise."""
    shown, made = chunk(Media(modality=Modality.IMAGE, content=picture(1))), preparer(tmp_path)
    first, again = made.bundle(shown), made.bundle(shown)
    assert again.to_encode.keys() == first.to_encode.keys() == {Modality.IMAGE}


def test_a_row_whose_picture_could_not_be_fetched_is_external_too(tmp_path: Path) -> None:
    """Tomorrow it may be there: what became of it today must not be found under the file's hash for ever."""
    media = Media(modality=Modality.IMAGE, where="http://127.0.0.1:9/x.png")
    (row,) = preparer(tmp_path).bundle(chunk(media)).rows
    assert row.reason
    assert row.is_external


def test_a_template_that_refuses_a_row_costs_that_row(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    tokenizer.chat_template = refusal + END
    (row,) = preparer(tmp_path, tokenizer, "chat").bundle(chunk(system="be brief")).rows
    assert "no system role" in row.reason


def test_a_prompt_does_not_depend_on_the_day() -> None:
    """Llama 3.2's template says which day it is, by the function that transformers gives it."""
    tokenizer = word_tokenizer()
    today = date.today().isoformat()
    tokenizer.chat_template = "{{ 'cat ' if strftime_now('%Y-%m-%d') == '" + today + "' else 'dog ' }}" + END
    prompter = Prompter(tokenizer=tokenizer, template="chat")
    assert tokenizer.decode(prompter.prompt("what ?")).split()[0] == "dog"
