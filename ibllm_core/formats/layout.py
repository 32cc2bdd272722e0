"""Which files of a folder are the dataset: Hugging Face's layouts, shards, the training split."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import closing
from pathlib import PurePosixPath

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.names import shown
from ibllm_core.formats.source import Source

# Of several kinds the first is the data: img2dataset writes Parquet files of addresses beside its tars.
KINDS = ((".tar",), (".parquet",), (".arrow", ".feather"), (".jsonl", ".ndjson", ".json"), (".tsv", ".csv"))
METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # imagefolder, audiofolder, videofolder

_STATE, _STATE_BYTES = "state.json", 16 << 20
_NOT_ROWS = re.compile(r"(dataset_infos?|dataset_dict|state|config|.*_stats)\.json", re.IGNORECASE)
_TRAINING = re.compile(r"(?<![a-z])train(ing)?(?![a-z])", re.IGNORECASE)
_HELD_OUT = re.compile(r"(?<![a-z])(val(id(ation)?)?|dev|test(ing)?|eval(uation)?)(?![a-z])", re.IGNORECASE)
_DIGITS = re.compile(r"\d+")


def data_files(source: Source) -> list[str]:
    """The files with rows, sorted; one kind, and shards of one dataset: names that differ in digits alone.

    Of files whose folder or name has a word like ``train``, ``validation`` or ``test``, those of ``train`` are taken;
    without any, those that name no split; without these, the held-out ones. ``InvalidDataError`` where nothing is left,
    or where what is left belongs to several datasets.
    """
    names = source.names()
    if len(names) == 1:
        return names
    states = _training_files([name for name in names if PurePosixPath(name).name == _STATE])
    if states:
        return _saved_files(source, _only_one(source, states))
    metadata = [name for name in names if is_metadata(name)]
    for candidates in (metadata, *(_of_kind(names, kind) for kind in KINDS)):
        files = _training_files(candidates)
        if files:
            _check_shards(source, files)
            return files
    raise InvalidDataError(
        f"{source.uri} holds no file of rows (among {len(names)}, such as {shown(names[0]) if names else 'none'}): add "
        f"{', '.join(METADATA_NAMES[:2])} with file_name and text beside pictures, or one of "
        f"{', '.join(extension for kind in KINDS for extension in kind)}"
    )


def is_metadata(name: str) -> bool:
    """Whether the file describes the media of its own folder, so that its paths begin there."""
    return PurePosixPath(name).name in METADATA_NAMES


def _of_kind(names: Iterable[str], extensions: tuple[str, ...]) -> list[str]:
    return [
        name
        for name in names
        if name.lower().endswith(extensions) and not _NOT_ROWS.fullmatch(PurePosixPath(name).name)
    ]


def _training_files(names: list[str]) -> list[str]:
    training = [name for name in names if _TRAINING.search(name)]
    unmarked = [name for name in names if not _HELD_OUT.search(name)]
    return training or unmarked or names


def _check_shards(source: Source, files: list[str]) -> None:
    groups = {_DIGITS.sub("0", name): name for name in reversed(files)}
    if len(groups) > 1:
        first, second = sorted(groups.values())[:2]
        raise InvalidDataError(
            f"{source.uri} holds {len(groups)} datasets, such as {shown(first)} and {shown(second)}: give one of the "
            "files, or name the shards of one dataset alike but for their number"
        )


def _only_one(source: Source, states: list[str]) -> str:
    if len(states) > 1:
        raise InvalidDataError(
            f"{source.uri} holds {len(states)} saved datasets, such as {shown(states[0])} and {shown(states[1])}: give "
            "the folder of one"
        )
    return states[0]


def _saved_files(source: Source, state: str) -> list[str]:
    """The files that ``save_to_disk`` names: those of its cache lie beside them."""
    try:
        with closing(source.stream(state, 0, _STATE_BYTES)) as stream:
            names = [entry["filename"] for entry in json.loads(stream.read())["_data_files"]]
        files = [str(PurePosixPath(state).parent / name) for name in names]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidDataError(
            f"{shown(state)} in {source.uri} is not what datasets.save_to_disk writes: save the dataset again"
        ) from error
    missing = sorted(set(files) - set(source.names()))
    if missing or not files:
        raise InvalidDataError(
            f"{source.uri} lacks {shown(missing[0]) if missing else 'the files of its rows'}, which {state} names: "
            "copy the whole folder"
        )
    return files
