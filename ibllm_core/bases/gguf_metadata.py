"""What a GGUF file says about itself: values by key, shapes, and the refusal of what a LLaMA does not have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader

from ibllm_core.bases.translate import first_line
from ibllm_core.errors import InvalidWeightsError

REQUIRED = object()


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """A GGUF header; its reader maps the file, so it is not kept once the tensors' places are known."""

    path: Path
    reader: GGUFReader

    def value(self, key: str, default: Any = REQUIRED) -> Any:
        """A metadata value; ``InvalidWeightsError`` where one without a default is missing."""
        field = self.reader.get_field(key)
        if field is not None:
            return field.contents()
        if default is REQUIRED:
            raise self.refused(key, "nothing", "a value", "copy or download the file again, or convert it anew")
        return default

    def count(self, key: str, default: Any = REQUIRED) -> int:
        """A value that must be one positive number, and not one for each layer."""
        value = self.value(key, default)
        if not isinstance(value, int) or value < 1:
            raise self.refused(key, value, "one positive number", "choose another base model")
        return value

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name, slowest dimension first; GGUF itself has the fastest first."""
        return {tensor.name: tuple(int(size) for size in reversed(tensor.shape)) for tensor in self.reader.tensors}

    def refused(self, key: str, found: object, expected: object, remedy: str) -> InvalidWeightsError:
        """The error for a value that cannot be used."""
        return InvalidWeightsError(
            f"{self.path} has {found} for {key}; expected {expected}: {remedy}",
            file=str(self.path),
            key=key,
            expected=expected,
        )


def read_metadata(path: Path) -> Metadata:
    """Read a file's header; ``InvalidWeightsError`` where it is torn or no GGUF."""
    try:
        return Metadata(path=path, reader=GGUFReader(path))
    except (ValueError, IndexError, KeyError, OverflowError, OSError) as error:
        raise InvalidWeightsError(
            f"{path} cannot be read as GGUF ({first_line(error)}): copy or download the file again",
            file=str(path),
            expected="a complete GGUF file",
        ) from error
