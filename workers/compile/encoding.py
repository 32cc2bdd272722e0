"""How fast a run encoded, and how busy its encoders were: what a user pays the GPUs for."""

from __future__ import annotations

from dataclasses import dataclass

from workers.compile.rows import Bundle


@dataclass
class Encoding:
    """Sums over bundles; the span is from the first picture's turn to the end of the last one's."""

    actors: int
    media: int = 0
    busy_seconds: float = 0.0
    began: float = float("inf")
    ended: float = 0.0

    def add(self, bundle: Bundle) -> None:
        """Count a bundle's media."""
        if bundle.encoded is None:
            return
        began, ended = bundle.encoded
        self.media += len(bundle.vectors)
        self.busy_seconds += ended - began
        self.began, self.ended = min(self.began, began), max(self.ended, ended)

    @property
    def per_second(self) -> float:
        """Media a second over the span."""
        return self.media / max(self.ended - self.began, 1e-9)

    @property
    def busy_share(self) -> float:
        """Share of the span that an encoder actor spent encoding."""
        return self.busy_seconds / max(self.actors * (self.ended - self.began), 1e-9)

    def told(self) -> str:
        """One line for people."""
        return f"encoded {self.media} media at {self.per_second:.1f} a second; encoders were busy {self.busy_share:.0%}"

    def as_data(self) -> dict[str, float]:
        """The same for programs."""
        return {"media": self.media, "media_per_second": self.per_second, "busy_share": self.busy_share}
