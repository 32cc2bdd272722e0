"""What encoded media are, by their first bytes."""

from __future__ import annotations

from ibllm_core.contract.media import Modality

_IMAGE = frozenset({Modality.IMAGE})
_AUDIO = frozenset({Modality.AUDIO})
_VIDEO = frozenset({Modality.VIDEO})
_EITHER = _AUDIO | _VIDEO  # containers that hold sound, film or both

_PREFIXES = (
    (b"\x89PNG\r\n\x1a\n", _IMAGE),
    (b"\xff\xd8\xff", _IMAGE),
    (b"GIF8", _IMAGE),
    (b"BM", _IMAGE),
    (b"II*\0", _IMAGE),
    (b"MM\0*", _IMAGE),
    (b"\0\0\0\x0cjP  ", _IMAGE),
    (b"fLaC", _AUDIO),
    (b"ID3", _AUDIO),
    (b"FORM", _AUDIO),
    (b".snd", _AUDIO),
    (b"OggS", _EITHER),
    (b"\x1a\x45\xdf\xa3", _EITHER),  # Matroska and WebM
    (b"\0\0\x01\xba", _VIDEO),  # MPEG program stream
    (b"\x47\x40", _VIDEO),  # MPEG transport stream
    (b"FLV", _VIDEO),
)
_RIFF = {b"WEBP": _IMAGE, b"WAVE": _AUDIO, b"AVI ": _VIDEO}
_IMAGE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")

_EXTENSIONS = {
    Modality.AUDIO: ("wav", "flac", "mp3", "ogg", "oga", "opus", "m4a", "aac", "aiff"),
    Modality.VIDEO: ("mp4", "webm", "mkv", "avi", "mov", "m4v", "mpg", "mpeg", "flv"),
    Modality.IMAGE: ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "avif", "heic", "jp2"),
}
_BY_EXTENSION = {extension: modality for modality, names in _EXTENSIONS.items() for extension in names}


def sniff(content: bytes) -> frozenset[Modality]:
    """The kinds of media that the bytes may be: image, audio, video; empty where they look like none."""
    if content.startswith(b"RIFF"):
        return _RIFF.get(content[8:12], frozenset())
    if content[4:8] == b"ftyp":
        return _IMAGE if content[8:12] in _IMAGE_BRANDS else _EITHER
    for prefix, kinds in _PREFIXES:
        if content.startswith(prefix):
            return kinds
    # MPEG audio without tags: eleven set bits, and layer and bit rate that exist.
    is_mpeg_audio = len(content) > 2 and content[0] == 0xFF and content[1] >= 0xE0 and content[2] >> 4 != 0xF
    return _AUDIO if is_mpeg_audio else frozenset()


def modality_of(name: str) -> Modality | None:
    """The kind of media that a file's or an address's extension says; ``None`` where it says nothing."""
    path = name.partition("?")[0] if "://" in name else name
    return _BY_EXTENSION.get(path.rpartition(".")[2].lower())
