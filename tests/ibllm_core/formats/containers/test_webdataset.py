"""Files of a tar with the same name up to the first dot are a row; hostile and torn archives are said to be."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ibllm_core.contract.media import Modality
from ibllm_core.formats.containers import webdataset
from ibllm_core.formats.sample import Media, Sample
from tests.ibllm_core.formats.files import bad_rows, good_rows, opened, picture, samples, sound, tar

GOOD = {"0.png": picture(), "0.txt": b"a dot\n", "1.png": picture(1), "1.txt": b"another"}


def archive(change: Callable[[tarfile.TarInfo], None], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """Three rows of which the picture of the second is changed."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as file:
        for number in range(3):
            for name, content in ((f"{number}.png", picture(number)), (f"{number}.txt", b"a dot")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                if name == "1.png":
                    change(info)
                file.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return stream.getvalue()


def only(folder: Path, members: dict[str, bytes]) -> Sample:
    (sample,) = samples(opened(folder, {"a.tar": tar(members)}))
    return sample


def test_the_name_ends_at_the_first_dot_and_hidden_files_are_none(tmp_path: Path) -> None:
    members = {
        "./a/0.png": picture(),
        "./a/._0.png": b"",
        "./a/README": b"x",
        "./a/0.seg.png": b"",
        "./a/0.txt": b"one",
    }
    sample = only(tmp_path, members | {"./a/.x": b""})
    assert sample.media == (Media(modality=Modality.IMAGE, content=picture()),)
    assert sample.turns[0].answer == "one"


def test_equal_names_in_other_folders_are_other_rows(tmp_path: Path) -> None:
    members = {f"{folder}/{name}": content for folder in "ab" for name, content in GOOD.items()}
    assert good_rows(opened(tmp_path, {"a.tar": tar(members)})) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "content", "modality"),
    [
        ("0.JPG", picture(kind="JPEG"), "image"),
        ("0.webp", picture(kind="WEBP"), "image"),
        ("0.wav", sound(), "audio"),
        ("0.flac", b"fLaC", "audio"),
        ("0.mp4", b"film", "video"),
        ("0.depth.png", picture(), "depth"),
        ("0.point.npy", b"cloud", "point"),
    ],
)
def test_the_extension_tells_the_modality(tmp_path: Path, name: str, content: bytes, modality: str) -> None:
    media = only(tmp_path, {name: content, "0.txt": b"it"}).media
    assert media == (Media(modality=Modality(modality), content=content),)


def test_a_json_may_hold_a_conversation_about_the_picture(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dot."}]
    row = json.dumps({"id": "0", "image": "coco/0.png", "conversations": talk}).encode()
    sample = only(tmp_path, {"0.png": picture(), "0.json": row})
    assert sample.turns[0].instruction == "What is it?"
    assert sample.media == (Media(modality=Modality.IMAGE, content=picture()),)


def test_a_class_may_be_a_caption_and_its_number_is_none(tmp_path: Path) -> None:
    members = {"0.png": picture(), "0.cls": b"tabby cat", "1.png": picture(), "1.cls": b"281"}
    rows = list(opened(tmp_path, {"a.tar": tar(members)}))
    assert good_rows(rows) == [1]
    assert "only the number of a class (281)" in bad_rows(rows)[2]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"2.png": b"", "2.txt": b"x"}, "holds no bytes"),
        ({"2.png": picture()}, "has no caption"),
        ({"2.txt": b"x", "2.npy": b""}, "has no medium"),
        ({"2.png": picture(), "2.txt": b"caf\xe9"}, "'2.txt', which is not UTF-8 at byte offset 3"),
        ({"2.png": picture(), "2.json": b"{"}, "'2.json', which is broken JSON"),
        ({"2.png": picture(), "2.json": b"[]"}, "'2.json', which is a list, not an object"),
    ],
)
def test_a_bad_row_costs_no_other(tmp_path: Path, members: dict[str, bytes], reason: str) -> None:
    rows = list(opened(tmp_path, {"a.tar": tar({**GOOD, **members, "3.png": picture(), "3.txt": b"x"})}))
    assert reason in bad_rows(rows)[3]
    assert good_rows(rows) == [1, 2, 4]


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}, "'1.png', which is a link"),
        ({"type": tarfile.LNKTYPE, "linkname": "0.png", "size": 0}, "'1.png', which is a link"),
        ({"type": tarfile.FIFOTYPE, "size": 0}, "'1.png', which is a link or another special file"),
        ({"name": "/1.png"}, "'/1.png', whose path leads out"),
        ({"name": "../1.png"}, "'../1.png', whose path leads out"),
        ({"name": "a/../../1.png"}, "whose path leads out"),
        ({"name": "a\\..\\1.png"}, "whose path leads out"),
        ({"name": "C:\\1.png"}, "whose path leads out"),
    ],
)
def test_a_hostile_member_is_refused(tmp_path: Path, kind: int, values: dict[str, object], reason: str) -> None:
    def change(info: tarfile.TarInfo) -> None:
        for name, value in values.items():
            setattr(info, name, value)

    rows = list(opened(tmp_path, {"a.tar": archive(change, kind)}))
    assert reason in bad_rows(rows)[2]
    last = rows[-1].row
    assert good_rows(rows) == [1, last]


def test_a_member_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "MAX_MEDIA_BYTES", 1 << 20)
    large = {"2.png": bytes((1 << 20) + 1), "2.txt": b"x"}
    rows = list(opened(tmp_path, {"a.tar": tar({**GOOD, **large, "3.png": picture(), "3.txt": b"x"})}))
    assert "'2.png', which has 1 MiB, more than 1 MiB" in bad_rows(rows)[3]
    assert good_rows(rows) == [1, 2, 4]


def test_wherever_a_tar_is_cut_off_the_rows_before_stand_and_the_last_one_says_so(tmp_path: Path) -> None:
    data = tar({**GOOD, "2.png": picture(2) * 20, "2.txt": b"x"})
    start, whole = data.index(b"2.png"), data.index(b"2.txt") + 512 + len(b"x")
    for size in range(start, whole + 600, 64):
        rows = list(opened(tmp_path, {"a.tar": data[:size]}))
        assert good_rows(rows) == ([1, 2, 3] if size >= whole else [1, 2])
        assert re.search("cut off|no end mark", bad_rows(rows)[rows[-1].row])


def test_a_header_that_is_damaged_is_not_taken_for_the_end(tmp_path: Path) -> None:
    data = bytearray(tar(GOOD))
    data[data.index(b"1.png") + 150] ^= 0xFF  # its checksum
    rows = list(opened(tmp_path, {"a.tar": bytes(data)}))
    assert good_rows(rows) == [1]
    assert "no end mark" in bad_rows(rows)[2]


def test_a_pax_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    rows = list(opened(tmp_path, {"a.tar": tar(GOOD)[:4096] + info.tobuf()}))
    assert "a header of 1073741824 bytes" in bad_rows(rows)[3]
    assert good_rows(rows) == [1, 2]


@pytest.mark.parametrize("cut", [None, -5100])
def test_counting_and_reading_see_the_same_rows(tmp_path: Path, cut: int | None) -> None:
    shards = {f"{number}.tar": tar({**GOOD, "9.png": picture() * 9, "9.txt": b"x"})[:cut] for number in range(3)}
    dataset = opened(tmp_path, shards)
    found = [[row.row for row in dataset.read(piece)] for piece in dataset.pieces()]
    assert [number for rows in found for number in rows] == list(range(1, sum(map(len, found)) + 1))
