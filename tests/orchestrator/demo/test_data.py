import json
from pathlib import Path

from PIL import Image

from ibllm_core.formats.dataset import open_dataset
from ibllm_core.formats.sample import Sample
from ibllm_core.formats.sources import LocalSource
from orchestrator.demo.data import Row, Size, choose, describe_shapes, read_stamps, write_jsonl
from orchestrator.demo.packages import Sources


def make_sources(root: Path) -> Sources:
    """Packages in small: ten captioned pictures, two with one caption; six pictures with questions in each part."""
    stamps = root / "stamps"
    for index in range(10):
        folder = stamps / "animals"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (300, 20), (index, 0, 0, 128)).save(folder / f"{index}.png")
        caption = "A frog." if index < 2 else f"Animal {index}."
        (folder / f"{index}.txt").write_text(f"{caption}\nde.utf8=Ein Tier.\n")
    (stamps / "symbols").mkdir()
    Image.new("RGB", (9, 9)).save(stamps / "symbols/flag.png")
    (stamps / "symbols/flag.txt").write_text("A flag.\n")
    for part in ("train", "test"):
        images = root / "vqa" / part / "images"
        images.mkdir(parents=True)
        questions = []
        for index in range(6):
            Image.new("RGB", (64, 64), (index * 40, 0, 0)).save(images / f"{index}.png")
            questions += [["what shape is present?", "circle", index], ["what color is the shape?", "red", index]]
            questions += [["is there a circle?", "yes", index]]
        (root / "vqa" / part / "questions.json").write_text(json.dumps(questions))
    return Sources(stamps=stamps, easy_vqa=root / "vqa", base_gguf=root / "none")


SIZE = Size(stamps=None, held_out_captions=3, shape_pictures=4, questions=10, held_out_pictures=2, held_out_questions=5)


def test_no_held_out_caption_and_no_held_out_picture_occurs_in_training(tmp_path: Path) -> None:
    chosen = choose(make_sources(tmp_path), SIZE)
    training = {row.answer for row in chosen.captions}
    assert not training & {row.answer for row in chosen.held_out_captions}
    assert len({row.answer for row in chosen.held_out_captions}) == 3
    pictures = {row.picture for row in [*chosen.captions, *chosen.questions]}
    held_out = {row.picture for row in [*chosen.held_out_captions, *chosen.held_out_questions]}
    assert not pictures & held_out


def test_the_choice_is_the_same_every_time(tmp_path: Path) -> None:
    sources = make_sources(tmp_path)
    assert choose(sources, SIZE) == choose(sources, SIZE)


def test_flags_and_symbols_are_left_out(tmp_path: Path) -> None:
    assert {row.picture.parent.name for row in read_stamps(make_sources(tmp_path).stamps)} == {"animals"}


def test_a_shape_is_described_by_its_training_answers(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    rows = [
        Row(picture=picture, instruction="what shape is present?", answer="circle"),
        Row(picture=picture, instruction="is there a circle?", answer="yes"),
    ]
    assert describe_shapes(rows) == []
    rows.append(Row(picture=picture, instruction="what color is the circle?", answer="blue"))
    assert [row.answer for row in describe_shapes(rows)] == ["A blue circle."]


def test_what_is_written_is_what_the_service_reads(tmp_path: Path) -> None:
    chosen = choose(make_sources(tmp_path), SIZE)
    write_jsonl(tmp_path / "rows.jsonl", chosen.captions)
    for sample, row in zip(open_dataset(LocalSource.at(tmp_path / "rows.jsonl")), chosen.captions, strict=True):
        assert isinstance(sample, Sample)
        assert [(turn.instruction, turn.answer) for turn in sample.turns] == [(row.instruction, row.answer)]
        assert sample.media[0].content is not None
        assert sample.media[0].content.startswith(b"\x89PNG")
