"""Rows that a compile run has finished, in the object store: where its next attempt goes on.

A block holds consecutive rows of one piece whose media are all stored or refused. Its name says which, so that listing
them is all it takes to resume.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ibllm_core.contract.marking import read_marking
from ibllm_core.prompts import TokenisedSample
from ibllm_core.storage import Store
from workers.compile.rows import PreparedRow

NAME = re.compile(r"rows-(\d{6})-(\d{12})-(\d{12})-(more|end)\.parquet")
ROWS = pa.schema(
    [
        ("row", pa.int64()),
        ("reason", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("label_starts", pa.list_(pa.int32())),
        ("label_ends", pa.list_(pa.int32())),
        ("media", pa.list_(pa.string())),
        ("instruction", pa.string()),
        ("answer", pa.string()),
        ("marking", pa.string()),
        ("is_external", pa.bool_()),
    ]
)


@dataclass(frozen=True, kw_only=True, order=True)
class Block:
    """Rows ``first`` to ``next`` (exclusive) of a piece, counted within it from 0."""

    piece: int
    first: int
    next: int
    ends_piece: bool

    @property
    def name(self) -> str:
        """File name; names sort as blocks do."""
        return (
            f"rows-{self.piece:06d}-{self.first:012d}-{self.next:012d}-{'end' if self.ends_piece else 'more'}.parquet"
        )


class Staging:
    """The blocks of one input of a compile run."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def blocks(self) -> list[Block]:
        """What is there, in the order of the dataset."""
        names = (key.rpartition("/")[2] for key in self._store.list(f"{self._prefix}/"))
        return sorted(
            Block(piece=int(m[1]), first=int(m[2]), next=int(m[3]), ends_piece=m[4] == "end")
            for m in map(NAME.fullmatch, names)
            if m
        )

    def write(self, block: Block, rows: Sequence[PreparedRow]) -> None:
        """Write a block; from now on no attempt reads these rows again."""
        samples = [row.sample or TokenisedSample(tokens=[], labels=()) for row in rows]
        columns = {
            "row": [row.row for row in rows],
            "reason": [row.reason for row in rows],
            "tokens": [sample.tokens for sample in samples],
            "label_starts": [[start for start, _ in sample.labels] for sample in samples],
            "label_ends": [[end for _, end in sample.labels] for sample in samples],
            "media": [list(row.media) for row in rows],
            "instruction": [row.instruction for row in rows],
            "answer": [row.answer for row in rows],
            "marking": [row.marking and row.marking.model_dump_json() for row in rows],
            "is_external": [row.is_external for row in rows],
        }
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns, schema=ROWS), buffer, compression="zstd")
        self._store.put(f"{self._prefix}/{block.name}", buffer.getvalue())

    def read(self, block: Block) -> list[PreparedRow]:
        """The rows of a block."""
        table = pq.read_table(io.BytesIO(self._store.get(f"{self._prefix}/{block.name}")))
        return [
            PreparedRow(
                row=row["row"],
                reason=row["reason"],
                sample=None
                if row["reason"]
                else TokenisedSample(
                    tokens=row["tokens"], labels=tuple(zip(row["label_starts"], row["label_ends"], strict=True))
                ),
                media=tuple(row["media"]),
                instruction=row["instruction"],
                answer=row["answer"],
                marking=read_marking(row["marking"]) if row["marking"] else None,
                is_external=row["is_external"],
            )
            for row in table.to_pylist()
        ]

    def clear(self) -> None:
        """Remove all blocks: the dataset that they became is complete."""
        for block in self.blocks():
            self._store.delete(f"{self._prefix}/{block.name}")


def consecutive(blocks: Sequence[Block]) -> list[Block]:
    """The blocks that follow one on the other from the beginning of their piece, in the order of the dataset.

    Attempts that were killed may leave others: cut otherwise, or without what stood before them.
    """
    found: list[Block] = []
    expected: dict[int, int | None] = {}
    for block in sorted(blocks):
        if block.first == expected.get(block.piece, 0):
            found.append(block)
            expected[block.piece] = None if block.ends_piece else block.next
    return found


def resume_points(blocks: Sequence[Block]) -> dict[int, tuple[int, bool]]:
    """For each begun piece the row to go on from, and whether it is finished."""
    return {block.piece: (block.next, block.ends_piece) for block in consecutive(blocks)}
