"""Media containers, opened by FFmpeg through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import av
from av.container import InputContainer

from ibllm_core.encoders.preprocess.refusal import refusing

# Playlists and scripts (HLS, DASH, concat) name further files and addresses to read; they are left out, and so is
# every protocol.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,aac,mp3,amr"
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": ""}


@contextmanager
def opened(content: bytes, medium: str) -> Iterator[InputContainer]:
    """A container of ``FORMATS``; ``InvalidDataError`` where it cannot be opened or what is done inside fails."""
    with refusing(medium), av.open(BytesIO(content), mode="r", options=OPTIONS) as container:
        yield container
