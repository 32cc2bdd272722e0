"""Counting rows that occur again, in bounded memory."""

from __future__ import annotations

import hashlib

from ibllm_core.formats.sample import Sample

MAX_HASHES = 1 << 19  # about 60 MB


class DuplicateCounter:
    """Counts samples that an earlier one equals in texts and media.

    Exact up to ``MAX_HASHES`` distinct samples. Beyond that only hashes that end in some zero bits are kept, one bit
    more each time the memory is full; hashes are spread evenly, so that the count of these scales up.
    """

    def __init__(self, max_hashes: int = MAX_HASHES) -> None:
        self._max_hashes = max_hashes
        self._times: dict[bytes, int] = {}
        self._zero_bits = 0

    @property
    def is_exact(self) -> bool:
        """Whether every sample was looked at."""
        return self._zero_bits == 0

    @property
    def count(self) -> int:
        """Samples that were there before."""
        return sum(times - 1 for times in self._times.values()) << self._zero_bits

    def add(self, sample: Sample) -> None:
        """See one more sample."""
        digest = _digest(sample)
        if not self._is_kept(digest):
            return
        self._times[digest] = self._times.get(digest, 0) + 1
        while len(self._times) > self._max_hashes:
            self._zero_bits += 1
            self._times = {digest: times for digest, times in self._times.items() if self._is_kept(digest)}

    def _is_kept(self, digest: bytes) -> bool:
        return not int.from_bytes(digest[-8:], "big") & ((1 << self._zero_bits) - 1)


def _digest(sample: Sample) -> bytes:
    """16 bytes: two of a billion samples meet by chance with a probability of 1e-21."""
    turns = [(turn.instruction, turn.context, turn.answer) for turn in sample.turns]
    media = [(m.modality, m.where, m.content and hashlib.blake2b(m.content).digest()) for m in sample.media]
    return hashlib.blake2b(repr((sample.system, turns, media)).encode(), digest_size=16).digest()
