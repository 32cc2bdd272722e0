import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ibllm_core.bases.tokenizer import sentencepiece_tokenizer
from ibllm_core.contract.media import Modality
from ibllm_core.contract.templates import CAPTION_INSTRUCTION
from ibllm_core.errors import InvalidWeightsError
from ibllm_core.formats.check import BATCH, BATCH_BYTES, TELL_EVERY, Report, check
from ibllm_core.formats.duplicates import DuplicateCounter
from ibllm_core.formats.fetch import Fetcher
from ibllm_core.formats.sample import BadRow, Media, Sample, Turn
from ibllm_core.formats.sources import LocalSource
from ibllm_core.formats.token_count import token_counter
from ibllm_core.prompts import Prompter
from tests.conftest import word_tokenizer
from tests.ibllm_core.bases.files import write_pieces

CHATML = (
    "{% for m in messages %}<s>{{ m.role }} : {{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant : {% endif %}"
)


@dataclass(frozen=True)
class Listed:
    """A dataset of rows in memory, in two pieces."""

    rows: Sequence[Sample | BadRow]
    format: str = "a list"

    def pieces(self) -> list[slice]:
        half = len(self.rows) // 2
        return [slice(0, half), slice(half, None)]

    def read(self, piece: slice) -> Iterator[Sample | BadRow]:
        return iter(self.rows[piece])


def sample(row: int, answer: str = "a cat", media: Iterable[Media] = (), turns: int = 1) -> Sample:
    turn = Turn(instruction="what is this ?", answer=answer)
    return Sample(row=row, turns=(turn,) * turns, media=tuple(media))


def image(content: bytes | None = None, where: str | None = None) -> Media:
    return Media(modality=Modality.IMAGE, content=content, where=where)


def words(samples: Sequence[Sample]) -> list[int]:
    return [len(turn.answer.split()) for one in samples for turn in one.turns[:1]]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tokenizer's folder as transformers writes it."""
    tokenizer = word_tokenizer()
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_rows_turns_and_media_are_counted() -> None:
    rows = [
        sample(1, media=[image(b"12345"), Media(modality=Modality.AUDIO, where="a.wav")]),
        sample(2, turns=3),
        BadRow(row=3, reason="row 3 is no JSON"),
        sample(4, media=[image(where="https://pictures.example/a.png")]),
    ]
    report = check(Listed(rows))
    assert report == Report(
        format="a list",
        stage="stage2",
        is_usable=False,
        rows=4,
        samples=3,
        turns=5,
        characters=5 * len("what is this ?a cat"),
        media={"audio": 1, "image": 2},
        text_only=1,
        inline_bytes=5,
        duplicates=0,
        duplicates_are_exact=True,
        tokens=None,
        bad_rows=1,
        bad_share=0.25,
        first_bad=({"row": 3, "reason": "row 3 is no JSON"},),
    )


def caption(row: int, *, has_picture: bool = True) -> Sample:
    turn = Turn(instruction=CAPTION_INSTRUCTION, answer="a cat")
    return Sample(row=row, turns=(turn,), media=(image(b"1"),) if has_picture else ())


@pytest.mark.parametrize(
    ("rows", "stage"),
    [
        ([caption(1), caption(2)], "stage1"),
        ([caption(1), BadRow(row=2, reason="no")], "stage1"),
        ([caption(1), sample(2, media=[image(b"1")])], "stage2"),
        ([caption(1, has_picture=False)], "stage2"),
        ([sample(1)], "stage2"),
        ([BadRow(row=1, reason="no")], None),
    ],
)
def test_captions_alone_train_stage_1(rows: list[Sample | BadRow], stage: str | None) -> None:
    assert check(Listed(rows)).stage == stage


def test_characters_are_those_of_prompts_and_answers() -> None:
    turns = (Turn(instruction="ab", context="cde", answer="fghi"), Turn(instruction="j", answer="k"))
    assert check(Listed([Sample(row=1, turns=turns, system="xyz"), BadRow(row=2, reason="no")])).characters == 14


def test_lengths_are_a_histogram_and_nothing_is_cut() -> None:
    lengths = [1, 2, 3, 4, 5, 8, 9, 40]
    report = check(
        Listed([sample(row, answer="a " * length) for row, length in enumerate(lengths, start=1)]),
        count_tokens=words,
        row_tokens=8,
        context=32,
    )
    assert report.tokens is not None
    bins = {one.up_to: one.samples for one in report.tokens.bins}
    assert bins == {1: 1, 2: 1, 4: 2, 8: 2, 16: 1, 32: 0, 64: 1}
    assert (report.tokens.total, report.tokens.mean) == (72, 9.0)
    assert (report.tokens.longest, report.tokens.longest_row) == (40, 8)
    assert (report.tokens.over_row_tokens, report.tokens.over_context) == (2, 1)
    assert [bad.row for bad in report.first_bad] == [7, 8]
    assert "a packed row only 8: shorten it or raise hyperparameters.row_tokens" in report.first_bad[0].reason
    assert "the base's context only 32: shorten it" in report.first_bad[1].reason
    assert report.samples == 6


@pytest.mark.parametrize(("num_bad", "is_usable"), [(0, True), (1, True), (2, False), (100, False)])
def test_one_row_in_a_hundred_may_be_bad(num_bad: int, is_usable: bool) -> None:
    rows = [BadRow(row=n, reason="no") if n <= num_bad else sample(n) for n in range(1, 101)]
    report = check(Listed(rows), max_bad=1)
    assert report.is_usable is is_usable
    assert report.bad_rows == num_bad
    assert len(report.first_bad) == min(num_bad, 1)


def test_an_empty_dataset_is_not_usable() -> None:
    report = check(Listed([]), count_tokens=words)
    assert not report.is_usable
    assert (report.rows, report.bad_share, report.tokens) == (0, 0.0, None)


def test_identical_rows_are_duplicates_and_others_are_not() -> None:
    rows = [
        sample(1),
        sample(2),
        sample(3, answer="a dog"),
        sample(4, media=[image(b"1")]),
        sample(5, media=[image(b"1")]),
        sample(6, media=[image(b"2")]),
        sample(7, media=[image(where="1")]),
        Sample(row=8, turns=sample(8).turns, system="be brief"),
        Sample(row=9, turns=(Turn(instruction="what is this ?a", answer=" cat"),)),
    ]
    assert check(Listed(rows)).duplicates == 2


def test_duplicates_of_many_rows_are_estimated_in_bounded_memory() -> None:
    counter = DuplicateCounter(max_hashes=4096)
    for row in range(100_000):
        counter.add(sample(row, answer=f"number {row % 50_000}"))
    assert not counter.is_exact
    assert len(counter._times) <= 4096
    assert counter.count == pytest.approx(50_000, rel=0.05)


def test_media_that_are_missing_climb_out_or_are_empty_are_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "set/there.png").write_bytes(b"picture")
    (tmp_path / "set/empty.png").touch()
    (tmp_path / "set/link.png").symlink_to(tmp_path / "secret.png")
    places = ["there.png", "none.png", "../secret.png", "link.png", "empty.png", "http://10.0.0.1/x", "file:///x"]
    rows = [sample(row, media=[image(where=where)]) for row, where in enumerate(places, start=1)]
    report = check(Listed(rows), check_media=Fetcher(LocalSource(root=tmp_path / "set")).check)
    assert report.samples == 1
    assert [bad.row for bad in report.first_bad] == [2, 3, 4, 5, 6, 7]
    for bad, reason in zip(
        report.first_bad,
        ["put it there", "not a path below", "leaves the", "is empty", "not a public address", "cannot be read"],
        strict=True,
    ):
        assert reason in bad.reason


def test_tokens_are_counted_in_batches_without_the_pictures() -> None:
    sizes = []

    def count(samples: Sequence[Sample]) -> list[int]:
        assert not any(one.media for one in samples)
        sizes.append(len(samples))
        return [1] * len(samples)

    large = b"x" * (BATCH_BYTES // 4)
    check(Listed([sample(1, media=[image(b"small")])] * (BATCH + 1)), count_tokens=count)
    check(Listed([sample(1, media=[image(large)])] * 10), count_tokens=count)
    assert sizes == [BATCH, 1, 5, 5, 0]


def test_the_reader_is_told_how_far_it_is() -> None:
    heard: list[int] = []
    check(Listed([BadRow(row=1, reason="no")] * (2 * TELL_EVERY + 1)), tell=heard.append)
    assert heard == [TELL_EVERY, 2 * TELL_EVERY]


@pytest.mark.parametrize("template", ["alpaca", "short", "chat"])
def test_counts_are_those_of_training(base: Path, template: str) -> None:
    rows = [sample(1), sample(2, turns=3), sample(3, answer="a red dog on the mat .")]
    rows += [Sample(row=4, turns=(Turn(instruction="what ?", context="a cat", answer="this"),), system="a stop")]
    trained = Prompter(tokenizer=AutoTokenizer.from_pretrained(base), template=template)
    expected = [len(trained.sample(row.turns, system=row.system).tokens) for row in rows]
    assert list(token_counter(base / "tokenizer.json", template)(rows)) == expected


def test_counts_of_llamas_tokenizer_are_those_of_training(tmp_path: Path) -> None:
    sentencepiece_tokenizer(write_pieces(tmp_path)).save_pretrained(tmp_path / "base")
    row = sample(1, answer="  the quick  brown\n\nfox 123 café", turns=2)
    for template in ("alpaca", "short"):
        trained = Prompter(tokenizer=AutoTokenizer.from_pretrained(tmp_path / "base"), template=template)
        assert list(token_counter(tmp_path / "base/tokenizer.json", template)([row])) == [
            len(trained.sample(row.turns).tokens)
        ]


def test_samples_that_training_refuses_are_bad_rows(base: Path) -> None:
    rows = [sample(1), sample(2, answer="a </s> cat"), sample(3, answer=" "), sample(4)]
    report = check(Listed(rows), count_tokens=token_counter(base / "tokenizer.json", "short"))
    assert report.tokens is not None
    assert report.tokens.bins[0].samples == 2
    assert [bad.row for bad in report.first_bad] == [2, 3]
    assert "holds '</s>'" in report.first_bad[0].reason


def test_a_chat_template_that_refuses_a_sample_gives_its_reason(base: Path) -> None:
    (base / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    report = check(Listed([sample(1)]), count_tokens=token_counter(base / "tokenizer.json", "chat"))
    assert "roles must alternate" in report.first_bad[0].reason


def test_a_chat_template_stays_in_its_sandbox(base: Path) -> None:
    (base / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    report = check(Listed([sample(1)]), count_tokens=token_counter(base / "tokenizer.json", "chat"))
    assert "unsafe" in report.first_bad[0].reason


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("tokenizer.json", "{}", "is no tokenizer.json"),
        ("tokenizer_config.json", "{", "is no JSON: copy or download"),
        ("tokenizer_config.json", "{}", "names no eos_token"),
        ("tokenizer_config.json", json.dumps({"eos_token": "<none>"}), "names no eos_token"),
    ],
)
def test_a_damaged_tokenizer_is_named(base: Path, file: str, content: str, reason: str) -> None:
    (base / "special_tokens_map.json").unlink(missing_ok=True)
    (base / file).write_text(content)
    with pytest.raises(InvalidWeightsError, match=reason):
        token_counter(base / "tokenizer.json", "short")
