"""The error tree of ``ibllm_core``: stable codes, a sentence that names the remedy, picklable."""

from __future__ import annotations

from typing import Any


class CoreError(Exception):
    """Base of every error that ``ibllm_core`` raises.

    ``code`` is stable and machine readable; ``message`` says what was wrong, where, and what to do.
    Only ``message`` is positional, so instances survive pickling across Ray processes.
    """

    code = "core_error"

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.fields)


def _rebuild(cls: type[CoreError], message: str, fields: dict[str, Any]) -> CoreError:
    return cls(message, **fields)


class InvalidSpecError(CoreError):
    """The user's specification is wrong; changing it is the remedy."""

    code = "invalid_spec"


class InvalidDataError(CoreError):
    """A row, a file or a dataset cannot be used; the message names the row."""

    code = "invalid_data"


class InvalidWeightsError(CoreError):
    """A file of weights cannot be used: fields ``file``, ``key`` and ``expected`` name what and where."""

    code = "invalid_weights"


class InvalidPromptError(CoreError):
    """A prompt, an answer or a media vector cannot be used; nothing was cut or dropped in silence."""

    code = "invalid_prompt"


class BaseMismatchError(CoreError):
    """An adapter or a checkpoint was made for another base model."""

    code = "base_mismatch"


class FrozenWeightsMovedError(CoreError):
    """Training changed what must stay frozen: a defect, whose adapter must not be kept."""

    code = "frozen_weights_moved"


class OutOfMemoryError(CoreError):
    """A worker ran out of memory; field ``micro_batch_tokens`` is what to go on with, None where nothing is smaller."""

    code = "out_of_memory"


class StorageError(CoreError):
    """The object store refused or could not be reached; retrying later may help."""

    code = "storage_unavailable"


class ObjectMissingError(StorageError):
    """The object that was asked for does not exist."""

    code = "object_missing"


class ObjectExistsError(StorageError):
    """A conditional write lost: the object exists already."""

    code = "object_exists"


class IntegrityError(StorageError):
    """Bytes do not have the checksum that their manifest states."""

    code = "integrity"
