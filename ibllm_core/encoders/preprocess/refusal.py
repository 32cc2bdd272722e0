"""How a medium is refused: one sentence that ends in the remedy, whatever the decoder underneath raised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ibllm_core.errors import InvalidDataError


def unusable(medium: str, problem: str) -> InvalidDataError:
    """The error for ``medium`` ("a picture"), whose ``problem`` is said as a predicate ("has no pixels")."""
    return InvalidDataError(f"{medium} {problem}: replace it or remove its row")


@contextmanager
def refusing(medium: str) -> Iterator[None]:
    """Turn what a decoder raises into ``InvalidDataError``.

    All of ``Exception``, because on broken bytes decoders raise whatever their innermost parser tripped over, from
    ``struct.error`` to ``RecursionError``. It belongs around decoding alone, lest a defect here look like the medium's.
    """
    try:
        yield
    except InvalidDataError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise unusable(medium, f"cannot be decoded ({reason})") from error
