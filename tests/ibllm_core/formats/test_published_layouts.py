"""Rows in the layouts of sets that are published, read as their authors meant them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ibllm_core.contract.media import Modality
from ibllm_core.contract.templates import CAPTION_INSTRUCTION
from ibllm_core.formats.sample import Media, Sample, Turn
from tests.ibllm_core.formats.files import data_url, json_lines, opened, picture, samples, sound, tar

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def caption(row: int, text: str, **media: object) -> Sample:
    return Sample(
        row=row,
        turns=(Turn(instruction=CAPTION_INSTRUCTION, answer=text),),
        media=(Media(**{"modality": Modality.IMAGE, **media}),),  # type: ignore[arg-type]
    )


def test_llava_instruct_150k(tmp_path: Path) -> None:
    rows = [
        {
            "id": "000000033471",
            "image": "000000033471.jpg",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat are the colours of the bus?"},
                {"from": "gpt", "value": "White and red."},
                {"from": "human", "value": "What can be seen behind it?"},
                {"from": "gpt", "value": "A wall."},
            ],
        },
        {
            "id": "000000442786",
            "image": "000000442786.jpg",
            "conversations": [
                {"from": "human", "value": "What is the ball doing?\n<image>"},
                {"from": "gpt", "value": "It flies."},
            ],
        },
        {
            "id": "wgByO4Y_0",
            "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day."}],
        },
    ]
    dataset = opened(tmp_path, {"llava_instruct_150k.json": json.dumps(rows).encode()})
    assert dataset.format == "LLaVA conversations (JSON array)"
    assert samples(dataset) == [
        Sample(
            row=1,
            turns=(
                Turn(instruction="What are the colours of the bus?", answer="White and red."),
                Turn(instruction="What can be seen behind it?", answer="A wall."),
            ),
            media=(Media(modality=Modality.IMAGE, where="000000033471.jpg"),),
        ),
        Sample(
            row=2,
            turns=(Turn(instruction="What is the ball doing?", answer="It flies."),),
            media=(Media(modality=Modality.IMAGE, where="000000442786.jpg"),),
        ),
        Sample(row=3, turns=(Turn(instruction="Hello", answer="Good day."),)),
    ]


def test_alpaca_gpt4_data(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Give three tips.", "input": "", "output": "1. Eat.\n2. Move.\n3. Sleep."},
        {"instruction": "分类句子。", "input": "我很高兴。", "output": "积极"},
    ]
    dataset = opened(tmp_path, {"alpaca_gpt4_data.json": json.dumps(rows, indent=4, ensure_ascii=False).encode()})
    assert dataset.format == "Alpaca instructions (JSON array)"
    assert [sample.turns for sample in samples(dataset)] == [
        (Turn(instruction="Give three tips.", answer="1. Eat.\n2. Move.\n3. Sleep."),),
        (Turn(instruction="分类句子。", context="我很高兴。", answer="积极"),),
    ]


@pytest.mark.parametrize("key", ["conversations", "items"])
def test_sharegpt(tmp_path: Path, key: str) -> None:
    messages = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "What does <video> do in HTML?"},
        {"from": "chatgpt", "value": "It plays a film."},
    ]
    dataset = opened(tmp_path, {"sharegpt.json": json.dumps([{"id": "QWJhYvA_0", key: messages}]).encode()})
    assert dataset.format == "ShareGPT conversations (JSON array)"
    assert samples(dataset) == [
        Sample(
            row=1,
            turns=(Turn(instruction="What does <video> do in HTML?", answer="It plays a film."),),
            system="Be brief.",
        )
    ]


def test_llama_factorys_mllm_demo(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"content": "<image>Who are they?", "role": "user"},
                {"content": "Two players.", "role": "assistant"},
                {"content": "What are they doing?<image>", "role": "user"},
                {"content": "They celebrate.", "role": "assistant"},
            ],
            "images": ["mllm_demo_data/1.jpg", "mllm_demo_data/1.jpg"],
        },
        {
            "messages": [
                {"content": "<video><audio>What is <audio> there?", "role": "user"},
                {"content": "A bird.", "role": "assistant"},
            ],
            "audios": ["1.mp3", "2.wav"],
            "videos": ["1.mp4"],
        },
    ]
    first, second = samples(opened(tmp_path, {"mllm_demo.json": json.dumps(rows).encode()}))
    assert [turn.instruction for turn in first.turns] == ["Who are they?", "What are they doing?"]
    assert [media.where for media in first.media] == ["mllm_demo_data/1.jpg"] * 2
    assert second.turns[0].instruction == "What is there?"
    assert [(str(media.modality), media.where) for media in second.media] == [
        ("audio", "1.mp3"),
        ("audio", "2.wav"),
        ("video", "1.mp4"),
    ]


def test_openais_vision_fine_tuning(tmp_path: Path) -> None:
    png = picture()
    address = {"type": "image_url", "image_url": {"url": "https://example.org/c.jpg"}}
    parts = [
        {"type": "text", "text": "What is this"},
        {"type": "text", "text": "cheese?"},
        {"type": "image_url", "image_url": {"url": data_url(png), "detail": "low"}},
        address,
    ]
    row = {
        "messages": [
            {"role": "system", "content": "You identify uncommon cheeses."},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": [{"type": "text", "text": "Danbo"}], "weight": 1},
        ]
    }
    dataset = opened(tmp_path, {"train.jsonl": json_lines([row])})
    assert dataset.format == "OpenAI chat (JSON Lines)"
    assert samples(dataset) == [
        Sample(
            row=1,
            turns=(Turn(instruction="What is this\ncheese?", answer="Danbo"),),
            media=(
                Media(modality=Modality.IMAGE, content=png),
                Media(modality=Modality.IMAGE, where="https://example.org/c.jpg"),
            ),
            system="You identify uncommon cheeses.",
        )
    ]


def test_openais_own_example_has_its_picture_in_a_second_user_message(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "What is this cheese?"}
    shown = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/c.jpg"}}]}
    answered = {"role": "assistant", "content": "Danbo"}
    rows = [{"messages": [asked, shown, answered]}, {"messages": [shown, asked, answered]}]
    for sample in samples(opened(tmp_path, {"train.jsonl": json_lines(rows)})):
        assert sample.turns == (Turn(instruction="What is this cheese?", answer="Danbo"),)
        assert sample.media == (Media(modality=Modality.IMAGE, where="https://example.org/c.jpg"),)


def test_the_released_trainers_csv_is_separated_by_tabs(tmp_path: Path) -> None:
    text = 'url\tcaption\n/data/coco/1.jpg\tA man, a plan\n/data/coco/2.jpg\tthe "big" one\n'
    dataset = opened(tmp_path, {"coco.csv": text.encode()})
    assert dataset.format == "image-caption pairs (TSV)"
    assert samples(dataset) == [
        caption(1, "A man, a plan", where="/data/coco/1.jpg"),
        caption(2, 'the "big" one', where="/data/coco/2.jpg"),
    ]


def test_cc3m_has_no_header_and_the_caption_first(tmp_path: Path) -> None:
    text = (
        "a very typical bus station\thttp://lh6.ggpht.com/-IvRtNLNcG8o/TpFyrudaT6I/AAAAAAAAM6o/_11MuAAKalQ/IMG_3422.JPG\n"
        '"sierra" looked stunning in this top\thttp://78.media.tumblr.com/3b133294bdc7c7784b781c45f4ee0f8a/x.jpg\n'
    )
    dataset = opened(tmp_path, {"Train_GCC-training.tsv": text.encode()})
    assert [(sample.turns[0].answer, sample.media[0].where) for sample in samples(dataset)] == [
        tuple(line.split("\t")) for line in text.splitlines()
    ]


def test_img2dataset_writes_tars_beside_their_statistics(tmp_path: Path) -> None:
    def row(number: int, status: str = "success") -> bytes:
        described = {"url": f"http://x.org/{number}.jpg", "caption": f"picture {number}", "key": f"{number:09d}"}
        return json.dumps(described | {"status": status, "error_message": None, "width": 4, "exif": "{}"}).encode()

    table = io.BytesIO()
    pq.write_table(pa.table({"url": ["http://x.org/0.jpg"], "caption": ["picture 0"]}), table)
    files = {"00000_stats.json": b'{"count": 2}', "00000.parquet": table.getvalue()}
    for shard in (0, 1):
        members = {}
        for number in (2 * shard, 2 * shard + 1):
            members |= {
                f"{number:09d}.jpg": picture(number, "JPEG"),
                f"{number:09d}.json": row(number),
                f"{number:09d}.txt": f"picture {number}".encode(),
            }
        files[f"{shard:05d}.tar"] = tar(members)
    dataset = opened(tmp_path, files)
    assert dataset.format == "image-caption pairs (WebDataset)"
    assert samples(dataset) == [
        caption(number + 1, f"picture {number}", content=picture(number, "JPEG")) for number in range(4)
    ]


def test_a_hub_folder_with_pictures_in_parquet(tmp_path: Path) -> None:
    def shard(first: int) -> bytes:
        images = [{"bytes": picture(first), "path": "a.png"}, {"bytes": None, "path": "b.png"}]
        stream = io.BytesIO()
        columns = {"image": pa.array(images, IMAGE), "text": pa.array([f"picture {first}", f"picture {first + 1}"])}
        pq.write_table(pa.table(columns), stream)
        return stream.getvalue()

    dataset = opened(
        tmp_path,
        {
            "README.md": b"---\n",
            "data/train-00000-of-00002.parquet": shard(0),
            "data/train-00001-of-00002.parquet": shard(2),
            "data/test-00000-of-00001.parquet": shard(9),
        },
    )
    assert dataset.format == "image-caption pairs (Parquet)"
    assert samples(dataset) == [
        caption(1, "picture 0", content=picture(0)),
        caption(2, "picture 1", where="b.png"),
        caption(3, "picture 2", content=picture(2)),
        caption(4, "picture 3", where="b.png"),
    ]


def test_llava_one_vision_has_conversations_in_parquet_and_rows_without_a_picture(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dot."}]
    text = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day."}]
    stream = io.BytesIO()
    columns = {
        "id": pa.array(["a", "b"]),
        "image": pa.array([{"bytes": picture(), "path": None}, None], IMAGE),
        "conversations": pa.array([talk, text]),
    }
    pq.write_table(pa.table(columns), stream)
    dataset = opened(tmp_path, {"train-00000-of-00001.parquet": stream.getvalue()})
    assert dataset.format == "LLaVA conversations (Parquet)"
    assert [len(sample.media) for sample in samples(dataset)] == [1, 0]


def test_a_dataset_that_was_saved_to_disk(tmp_path: Path) -> None:
    def shard(name: str) -> bytes:
        table = pa.table({"image": pa.array([{"bytes": picture(), "path": None}], IMAGE), "text": pa.array([name])})
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
        return stream.getvalue()

    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    state = json.dumps({"_data_files": [{"filename": name} for name in names], "_split": "train"}).encode()
    files = {"dataset_dict.json": b'{"splits": ["train", "test"]}', "train/cache-1f3a.arrow": shard("cached")}
    for split in ("train", "test"):
        files |= {f"{split}/{name}": shard(f"{split} {name}") for name in names}
        files |= {f"{split}/state.json": state, f"{split}/dataset_info.json": b"{}"}
    dataset = opened(tmp_path, files)
    assert dataset.format == "image-caption pairs (Arrow)"
    assert samples(dataset) == [caption(i, f"train {name}", content=picture()) for i, name in enumerate(names, 1)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.jsonl", '{"file_name": "0001.png", "text": "a dot"}\n'),
        ("metadata.csv", "file_name,text\n0001.png,a dot\n"),
    ],
)
def test_an_image_folder_names_pictures_beside_its_metadata(tmp_path: Path, name: str, text: str) -> None:
    dataset = opened(
        tmp_path,
        {
            f"train/{name}": text.encode(),
            "train/0001.png": picture(),
            f"test/{name}": text.encode(),
            "test/0001.png": picture(),
        },
    )
    assert samples(dataset) == [caption(1, "a dot", where="train/0001.png")]


def test_an_audio_folder(tmp_path: Path) -> None:
    metadata = b"file_name,text\n0001.wav,a beep\n"
    (sample,) = samples(opened(tmp_path, {"metadata.csv": metadata, "0001.wav": sound()}))
    assert sample.media == (Media(modality=Modality.AUDIO, where="0001.wav"),)


def test_laions_columns(tmp_path: Path) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"URL": ["http://x.org/1.jpg"], "TEXT": ["a dot"], "similarity": [0.3]}), stream)
    assert samples(opened(tmp_path, {"part-00000.parquet": stream.getvalue()})) == [
        caption(1, "a dot", where="http://x.org/1.jpg")
    ]
