"""A sample's media as bytes, from the row, from beside the dataset, from a bucket or from the web."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.names import is_below, shown
from ibllm_core.formats.sample import Media
from ibllm_core.formats.source import Source
from ibllm_core.formats.sources import split_s3, user_bucket
from ibllm_core.formats.web import download, parse
from ibllm_core.settings import StorageSettings

MAX_BYTES = 256 << 20  # a minute of video, or half an hour of sound
TIMEOUT = 60.0
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(file|data):", re.IGNORECASE)


@dataclass(frozen=True)
class Fetcher:
    """Reads media for the samples of ``source``; picklable, and threads may share one.

    ``settings`` are needed for ``s3://`` media, which must lie below one of ``data_prefixes``, None for anywhere.
    ``allow_private`` lets addresses lead to private networks and to any port: only where whoever writes datasets also
    owns the network. ``timeout`` in seconds is for a web address with all its redirects and tries.
    """

    source: Source
    _: KW_ONLY
    settings: StorageSettings | None = field(default=None, repr=False)  # holds the secret key
    data_prefixes: tuple[str, ...] | None = None
    allow_private: bool = False
    max_bytes: int = MAX_BYTES
    timeout: float = TIMEOUT

    def fetch(self, media: Media) -> bytes:
        """The encoded bytes of one picture, sound, ...

        ``InvalidDataError`` for what cannot be used, which costs its sample; ``StorageError`` where the object store
        cannot be reached.
        """
        content = self._read(media)
        if not content:
            raise _empty(media)
        return content

    def check(self, media: Media) -> None:
        """Raise what ``fetch`` would, as far as it can be told without sending anything."""
        where = media.where
        if media.content is not None or where is None:
            if not media.content:
                raise _empty(media)
        elif (scheme := _scheme(where)) is None:
            self.source.check_beside(where)
        elif scheme == "s3":
            self._check_object(where)
        else:
            parse(where, allow_private=self.allow_private)

    def _read(self, media: Media) -> bytes:
        where = media.where
        if media.content is not None or where is None:
            return media.content or b""
        scheme = _scheme(where)
        if scheme is None:
            return self.source.read_beside(where, self.max_bytes)
        if scheme == "s3":
            return self._read_object(where)
        return download(where, allow_private=self.allow_private, max_bytes=self.max_bytes, timeout=self.timeout)

    def _read_object(self, where: str) -> bytes:
        if self.settings is None:
            raise InvalidDataError(
                f"{shown(where)} needs an object store, and none is set: put the file beside the rows"
            )
        bucket, key = self._check_object(where)
        return user_bucket(self.settings, bucket).read(key, self.max_bytes)

    def _check_object(self, where: str) -> tuple[str, str]:
        """Bucket and key of an address that the dataset may name: it is read with the service's own credentials."""
        bucket, key = split_s3(where)
        if self.data_prefixes is not None and not is_below(f"s3://{bucket}/{key}", self.data_prefixes):
            raise InvalidDataError(
                f"this project may not read {shown(where)}: put the medium into the row, or ask the operator to add "
                "its address to the project's data_prefixes"
            )
        return bucket, key


def _scheme(where: str) -> str | None:
    """The scheme of an address, None for a path; ``InvalidDataError`` for schemes that are not read."""
    found = SCHEME.match(where)
    if found is None:
        return None
    scheme = (found[1] or found[2]).lower()
    if scheme not in ("s3", "http", "https"):
        raise InvalidDataError(
            f"{shown(where)} cannot be read: write a path below the dataset's folder, or an s3://, http:// or https:// "
            "address"
        )
    return scheme


def _empty(media: Media) -> InvalidDataError:
    place = "in its row" if media.where is None else shown(media.where)
    return InvalidDataError(f"the {media.modality} {place} is empty: write the file again, or leave the row out")
