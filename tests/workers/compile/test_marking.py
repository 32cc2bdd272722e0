"""What answers are marked by travels from a row to the dataset, and is not part of what is learnt."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from ibllm_core.contract.marking import PeoplesAnswers, read_marking
from ibllm_core.formats.sample import Sample, Turn
from ibllm_core.storage import ObjectStore
from tests.ibllm_core.formats.object_store import running_store
from tests.workers.compile.test_prepare import preparer
from workers.compile.assemble import Assembler
from workers.compile.rows import Chunk
from workers.compile.staging import Block, Staging

PEOPLE = PeoplesAnswers(answers=("cat", "a cat"))


def test_a_marking_comes_through_preparing_staging_and_assembling(tmp_path: Path) -> None:
    turns = [Turn(instruction="what ?", answer="cat", marking=marking) for marking in (PEOPLE, None)]
    rows = tuple(Sample(row=number, turns=(turn,)) for number, turn in enumerate(turns, start=1))
    bundle = preparer(tmp_path).bundle(Chunk(input=0, piece=0, first=0, rows=rows, ends_piece=True))
    marked, plain = bundle.rows
    assert marked.sample == plain.sample
    (tmp_path / "dataset").mkdir()
    with running_store(tmp_path) as running:
        staging = Staging(ObjectStore(running.settings), "staging")
        staging.write(Block(piece=0, first=0, next=2, ends_piece=True), bundle.rows)
        assembler = Assembler(
            staging=staging,
            ledger=None,  # type: ignore[arg-type]  (rows without media ask for none)
            features=None,  # type: ignore[arg-type]
            folder=tmp_path / "dataset",
            scratch=tmp_path,
            views=1,
            feature_dim=4,
        )
        assembler.assemble(None)
    found, none = pq.read_table(tmp_path / "dataset/shard-00000.parquet")["marking"].to_pylist()
    assert (read_marking(found), none) == (PEOPLE, None)
