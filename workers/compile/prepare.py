"""Rows as tokens, media as the encoder's inputs: everything that needs neither weights nor other rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.base import Encoder
from ibllm_core.errors import InvalidDataError, InvalidPromptError
from ibllm_core.formats.fetch import Fetcher
from ibllm_core.formats.sample import BadRow, Media, Sample
from ibllm_core.prompts import Prompter
from workers.compile.identity import Recipe, crop_seed, media_key
from workers.compile.rows import Bundle, Chunk, PreparedRow, ToEncode

CROPPED = frozenset({Modality.IMAGE})
FETCH_THREADS = 16  # media that lie elsewhere: waiting costs no core


@dataclass(frozen=True, kw_only=True)
class Preparer:
    """One input's way from rows to a bundle; ``claim`` says of keys whether the named chunk has to encode them."""

    recipe: Recipe
    prompter: Prompter
    encoder: Encoder
    fetcher: Fetcher
    claim: Callable[[Sequence[str], str], list[bool]]

    def bundle(self, chunk: Chunk) -> Bundle:
        """Tokenise the rows of a chunk, and decode those of its media that nobody has encoded."""
        rows, contents = self._prepare(chunk.rows)
        keys = list(contents)
        claims = self.claim(keys, f"{chunk.input} {chunk.piece} {chunk.first}") if keys else []
        claimed = [key for key, is_ours in zip(keys, claims, strict=True) if is_ours]
        decoded: dict[Modality, dict[str, list[torch.Tensor]]] = {}
        bad = {}
        for key in claimed:
            modality, content = contents[key]
            try:
                # Only pictures have crops: every view of another medium would be the same.
                seeds = [crop_seed(key, view) for view in range(self.recipe.views if modality in CROPPED else 1)]
                views = [self.encoder.preprocess(modality, content, crop_seed=seed) for seed in seeds]
            except InvalidDataError as error:
                bad[key] = error.message
                continue
            decoded.setdefault(modality, {})[key] = views
        return Bundle(
            input=chunk.input,
            piece=chunk.piece,
            first=chunk.first,
            rows=tuple(rows),
            ends_piece=chunk.ends_piece,
            to_encode={
                modality: ToEncode(keys=tuple(media), inputs=np.stack([v.numpy() for vs in media.values() for v in vs]))
                for modality, media in decoded.items()
            },
            bad=bad,
        )

    def _prepare(self, rows: Sequence[Sample | BadRow]) -> tuple[list[PreparedRow], dict[str, tuple[Modality, bytes]]]:
        """Rows with the keys of their media, and the bytes behind each key."""
        tokenised = [self._tokenise(row) for row in rows]
        wanted = [
            media
            for row, made in zip(rows, tokenised, strict=True)
            if isinstance(row, Sample) and made.sample
            for media in row.media
        ]
        fetched = iter(self._fetch_all(wanted))
        contents: dict[str, tuple[Modality, bytes]] = {}
        prepared = []
        for row, made in zip(rows, tokenised, strict=True):
            if isinstance(row, BadRow) or made.sample is None:
                prepared.append(made)
                continue
            found = [next(fetched) for _ in row.media]
            missing = [content for content in found if isinstance(content, str)]
            is_external = any(media.where for media in row.media)
            if missing:
                prepared.append(PreparedRow(row=row.row, reason=missing[0], is_external=is_external))
                continue
            keys = []
            for media, content in zip(row.media, found, strict=True):
                assert isinstance(content, bytes)
                keys.append(media_key(media.modality, content))
                contents[keys[-1]] = media.modality, content
            prepared.append(
                PreparedRow(
                    row=row.row,
                    sample=made.sample,
                    media=tuple(keys),
                    instruction=row.turns[0].instruction,
                    answer=row.turns[0].answer,
                    marking=row.turns[0].marking,
                    is_external=is_external,
                )
            )
        return prepared, contents

    def _tokenise(self, row: Sample | BadRow) -> PreparedRow:
        if isinstance(row, BadRow):
            return PreparedRow(row=row.row, reason=row.reason)
        try:
            sample = self.prompter.sample(row.turns, system=row.system)
        except InvalidPromptError as error:
            return PreparedRow(row=row.row, reason=error.message)
        has_condition = bool(row.media) or self.recipe.grey_for_text
        num_positions = len(sample.tokens) + self.recipe.media_tokens * has_condition
        if num_positions > self.recipe.context:
            reason = f"it has {num_positions} tokens, the base's context only {self.recipe.context}: shorten it"
        elif num_positions > self.recipe.row_tokens:
            reason = (
                f"it has {num_positions} tokens, a packed row only {self.recipe.row_tokens}: shorten it or raise "
                "hyperparameters.row_tokens"
            )
        else:
            return PreparedRow(row=row.row, sample=sample)
        return PreparedRow(row=row.row, reason=reason)

    def _fetch_all(self, media: Sequence[Media]) -> list[bytes | str]:
        """The bytes of each medium, or why they cannot be had."""
        if all(medium.content is not None for medium in media):
            return [self._fetch(medium) for medium in media]
        with ThreadPoolExecutor(FETCH_THREADS) as threads:
            return list(threads.map(self._fetch, media))

    def _fetch(self, medium: Media) -> bytes | str:
        try:
            return self.fetcher.fetch(medium)
        except InvalidDataError as error:
            return error.message
