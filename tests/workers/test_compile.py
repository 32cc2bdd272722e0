"""Joining what the tokenizer and the encoder found; the run as a whole is tested end to end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from ibllm_core.contract.chat_row import ChatSample
from ibllm_core.contract.run_spec import CompileInput
from ibllm_core.data.dataset import GREY, NO_FEATURE
from ibllm_core.errors import InvalidDataError
from workers.compile import _assemble, _Encoded, _Source

DIM = 4


def source(template: str = "short", row_tokens: int = 24, count: int = 150) -> _Source:
    """Rows that in turn have a picture and none."""
    return _Source(
        item=CompileInput(file_id="file-1", sha256="f", template=template, row_tokens=row_tokens),
        rows=[
            (row, ChatSample(instruction="what is this ?", answer="a cat", image=None), "p" if row % 2 else None)
            for row in range(1, count + 1)
        ],
        pictures={"p": b""},
        quarantined=[],
    )


def assemble(tokenizer: PreTrainedTokenizerFast, made: _Source, **changes: Any) -> Any:
    encoded = _Encoded(vectors={"p": np.ones(DIM, dtype=np.float32)}, bad={})
    settings = {"media_tokens": 0, "context": 256, "feature_dim": DIM, "grey": None, **changes}
    return _assemble(made, encoded, tokenizer, **settings)


def test_text_alone_has_no_feature(tokenizer: PreTrainedTokenizerFast) -> None:
    compiled = assemble(tokenizer, source(count=2)).data
    assert [sample.feature for sample in compiled.samples] == [0, NO_FEATURE]
    assert compiled.feature_hashes == ["p"]


def test_text_alone_sees_grey_under_the_released_preset(tokenizer: PreTrainedTokenizerFast) -> None:
    grey = np.full(DIM, 0.5, dtype=np.float32)
    compiled = assemble(tokenizer, source(count=2), grey=grey).data
    assert [sample.feature for sample in compiled.samples] == [0, 1]
    assert compiled.feature_hashes == ["p", GREY]
    np.testing.assert_array_equal(compiled.features[1], grey)


def test_media_tokens_count_towards_a_row(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = len(assemble(tokenizer, source(count=2)).data.samples[0].tokens)
    assert assemble(tokenizer, source(row_tokens=tokens + 3), media_tokens=3).quarantined == []
    with pytest.raises(InvalidDataError, match=rf"75 of 150 rows.*row 1: it has {tokens + 3} tokens"):
        assemble(tokenizer, source(row_tokens=tokens + 2), media_tokens=3)


def test_a_template_that_does_not_fit_the_rows_is_said(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InvalidDataError, match="row 1: template 'caption' always asks"):
        assemble(tokenizer, source(template="caption"))


def test_samples_longer_than_the_bases_context_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = len(assemble(tokenizer, source(count=2)).data.samples[0].tokens)
    with pytest.raises(InvalidDataError, match=f"the base's context only {tokens - 1}: shorten it"):
        assemble(tokenizer, source(), context=tokens - 1)
