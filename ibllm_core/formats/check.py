"""The check before GPUs: one pass over a dataset that says what a job would find in it.

Nothing is ever cut: a sample that is too long is a bad row, here and in a job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ibllm_core.contract.base import Contract
from ibllm_core.contract.job_spec import DataSettings, TrainingStage
from ibllm_core.contract.templates import CAPTION_INSTRUCTION
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.duplicates import DuplicateCounter
from ibllm_core.formats.sample import BadRow, Media, Sample

if TYPE_CHECKING:
    from ibllm_core.formats.dataset import Dataset

BAD_SHARE_LIMIT = DataSettings().max_bad_share  # where a job does not say otherwise
BATCH = 512
BATCH_BYTES = 64 << 20
TELL_EVERY = 1000  # rows


class BadRowReport(Contract):
    """A row that a job would leave out, and why."""

    row: int
    reason: str


class TokenBin(Contract):
    """Samples of at most ``up_to`` tokens, and of more than the bin before."""

    up_to: int
    samples: int


class TokenReport(Contract):
    """Lengths in tokens, prompt and answers together, of all rows that could be read, too long ones included.

    Positions that a fusion gives to media (``concat``) are not among them.
    """

    total: int
    mean: float
    longest: int
    longest_row: int
    bins: tuple[TokenBin, ...]
    over_row_tokens: int
    over_context: int


class Report(Contract):
    """What a dataset holds. ``rows`` is ``samples`` and ``bad_rows`` together.

    ``is_usable`` says whether a job would train on it: there are samples, and bad rows are within the limit. A row of
    more than ``row_tokens`` or ``context`` tokens is a bad one; all but ``tokens`` is told of the samples. ``stage`` is
    what the samples train: captions of media stage 1, anything else among them stage 2. ``characters`` are those of
    prompts and answers. Both are None in reports of earlier versions, ``stage`` also without samples.
    """

    format: str
    stage: TrainingStage | None = None
    is_usable: bool
    rows: int
    samples: int
    turns: int
    characters: int | None = None
    media: dict[str, int]
    text_only: int
    inline_bytes: int
    duplicates: int
    duplicates_are_exact: bool
    tokens: TokenReport | None
    bad_rows: int
    bad_share: float
    bad_share_limit: float = BAD_SHARE_LIMIT
    first_bad: tuple[BadRowReport, ...]


def check(
    dataset: Dataset,
    *,
    count_tokens: Callable[[Sequence[Sample]], Sequence[int | BadRow]] | None = None,
    row_tokens: int | None = None,
    context: int | None = None,
    max_bad: int = 20,
    check_media: Callable[[Media], None] | None = None,
    tell: Callable[[int], None] | None = None,
) -> Report:
    """Read a dataset once and report; memory is that of a batch, and ``duplicates.MAX_HASHES``.

    ``count_tokens`` takes batches without media content, ``check_media`` raises ``InvalidDataError`` for a medium that
    cannot be used (``Fetcher.check``), ``tell`` hears the number of rows so far. Errors of the whole dataset pass.
    """
    tally = _Tally(row_tokens=row_tokens, context=context, max_bad=max_bad)
    for batch in _batches(_rows(dataset, check_media, tell)):
        samples = [_without_content(row) for row in batch if isinstance(row, Sample)]
        counts = iter(count_tokens(samples) if count_tokens else [None] * len(samples))
        for row in batch:
            if isinstance(row, BadRow):
                tally.add_bad(row)
            else:
                tally.add(row, next(counts))
    return tally.report(dataset.format)


def _rows(
    dataset: Dataset, check_media: Callable[[Media], None] | None, tell: Callable[[int], None] | None
) -> Iterator[Sample | BadRow]:
    num_rows = 0
    for piece in dataset.pieces():
        for row in dataset.read(piece):
            yield _checked(row, check_media) if check_media and isinstance(row, Sample) else row
            num_rows += 1
            if tell and num_rows % TELL_EVERY == 0:
                tell(num_rows)


def _checked(sample: Sample, check_media: Callable[[Media], None]) -> Sample | BadRow:
    try:
        for media in sample.media:
            check_media(media)
    except InvalidDataError as error:
        return BadRow(row=sample.row, reason=error.message)
    return sample


def _batches(rows: Iterable[Sample | BadRow]) -> Iterator[list[Sample | BadRow]]:
    """Batches of few rows, or of fewer where their media are large."""
    batch: list[Sample | BadRow] = []
    num_bytes = 0
    for row in rows:
        batch.append(row)
        num_bytes += _inline_bytes(row) if isinstance(row, Sample) else 0
        if len(batch) == BATCH or num_bytes > BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    yield batch


def _inline_bytes(sample: Sample) -> int:
    return sum(len(media.content) for media in sample.media if media.content)


class _Tally:
    """Everything that is counted."""

    def __init__(self, *, row_tokens: int | None, context: int | None, max_bad: int) -> None:
        self._max_bad = max_bad
        self._bad = 0
        self._first_bad: list[BadRowReport] = []
        self._samples = 0
        self._turns = 0
        self._captions = 0
        self._characters = 0
        self._text_only = 0
        self._inline_bytes = 0
        self._media: Counter[str] = Counter()
        self._duplicates = DuplicateCounter()
        self._lengths = _Lengths(row_tokens=row_tokens, context=context)

    def add_bad(self, row: BadRow) -> None:
        self._bad += 1
        if len(self._first_bad) < self._max_bad:
            self._first_bad.append(BadRowReport(row=row.row, reason=row.reason))

    def add(self, sample: Sample, num_tokens: int | BadRow | None) -> None:
        if isinstance(num_tokens, int):
            problem = self._lengths.add(sample.row, num_tokens)
            num_tokens = BadRow(row=sample.row, reason=problem) if problem else None
        if num_tokens is not None:
            self.add_bad(num_tokens)
            return
        self._samples += 1
        self._turns += len(sample.turns)
        self._captions += _is_caption(sample)
        self._characters += _characters(sample)
        self._text_only += not sample.media
        self._inline_bytes += _inline_bytes(sample)
        self._media.update(media.modality.value for media in sample.media)
        self._duplicates.add(sample)

    def report(self, name: str) -> Report:
        rows = self._samples + self._bad
        bad_share = self._bad / rows if rows else 0.0
        return Report(
            format=name,
            stage=self._stage(),
            is_usable=self._samples > 0 and bad_share <= BAD_SHARE_LIMIT,
            rows=rows,
            samples=self._samples,
            turns=self._turns,
            characters=self._characters,
            media=dict(sorted(self._media.items())),
            text_only=self._text_only,
            inline_bytes=self._inline_bytes,
            duplicates=self._duplicates.count,
            duplicates_are_exact=self._duplicates.is_exact,
            tokens=self._lengths.report(),
            bad_rows=self._bad,
            bad_share=bad_share,
            first_bad=tuple(self._first_bad),
        )

    def _stage(self) -> TrainingStage | None:
        if not self._samples:
            return None
        return "stage1" if self._captions == self._samples else "stage2"


def _is_caption(sample: Sample) -> bool:
    return bool(sample.media) and all(turn.instruction == CAPTION_INSTRUCTION for turn in sample.turns)


def _characters(sample: Sample) -> int:
    texts = ((turn.instruction, turn.context, turn.answer) for turn in sample.turns)
    return len(sample.system) + sum(len(text) for turn in texts for text in turn)


class _Lengths:
    """The histogram of lengths in bins that double, and who is too long."""

    def __init__(self, *, row_tokens: int | None, context: int | None) -> None:
        self._row_tokens = row_tokens
        self._context = context
        self._bins: Counter[int] = Counter()
        self._total = 0
        self._longest = (0, 0)
        self._over_row_tokens = 0
        self._over_context = 0

    def add(self, row: int, num_tokens: int) -> str:
        """Count a sample; returns why a job would leave it out, or nothing."""
        self._bins[max(num_tokens - 1, 0).bit_length()] += 1
        self._total += num_tokens
        if num_tokens > self._longest[0]:
            self._longest = (num_tokens, row)
        over_row = self._row_tokens is not None and num_tokens > self._row_tokens
        over_context = self._context is not None and num_tokens > self._context
        self._over_row_tokens += over_row
        self._over_context += over_context
        if over_context:
            return f"it has {num_tokens} tokens, the base's context only {self._context}: shorten it"
        if over_row:
            return (
                f"it has {num_tokens} tokens, a packed row only {self._row_tokens}: shorten it or raise "
                "hyperparameters.row_tokens"
            )
        return ""

    def report(self) -> TokenReport | None:
        if not self._bins:
            return None
        bits = range(min(self._bins), max(self._bins) + 1)
        return TokenReport(
            total=self._total,
            mean=self._total / self._bins.total(),
            longest=self._longest[0],
            longest_row=self._longest[1],
            bins=tuple(TokenBin(up_to=1 << number, samples=self._bins[number]) for number in bits),
            over_row_tokens=self._over_row_tokens,
            over_context=self._over_context,
        )


def _without_content(sample: Sample) -> Sample:
    return replace(sample, media=()) if _inline_bytes(sample) else sample
