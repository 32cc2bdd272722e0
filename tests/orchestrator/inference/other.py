"""Somebody else's application of Ray Serve."""

from __future__ import annotations

from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Echo:
    async def __call__(self) -> str:
        return "here"


application = Echo.bind()
