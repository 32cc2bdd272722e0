"""Foreign exceptions become ``InvalidWeightsError`` here, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ibllm_core.errors import InvalidWeightsError


@contextmanager
def translated_config(file: Path) -> Iterator[None]:
    """For building a ``LlamaConfig``, which validates with several exception types of its own."""
    try:
        yield
    except InvalidWeightsError:
        raise
    except Exception as error:
        raise InvalidWeightsError(
            f"{file} describes no valid LLaMA ({first_line(error)}): copy or download it again, or choose another base",
            file=str(file),
            expected="a LlamaConfig",
        ) from error


@contextmanager
def translated_tokenizer(path: Path) -> Iterator[None]:
    """For loading a tokenizer: transformers and tokenizers raise bare ``Exception``, ``OSError`` and others."""
    try:
        yield
    except Exception as error:
        raise InvalidWeightsError(
            f"no tokenizer can be loaded from {path} ({first_line(error)}): give a base that has one for transformers",
            file=str(path),
            expected="a tokenizer",
        ) from error


def first_line(error: Exception) -> str:
    """What an exception says, in short."""
    return str(error).strip().partition("\n")[0][:300]
