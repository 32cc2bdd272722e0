"""What the service and its model server agree on: which model a request is for, and how the server is set up."""

from __future__ import annotations

import hashlib
import json

from pydantic import Field

from ibllm_core.contract.base import Contract

MODEL_HEADER = "serve_multiplexed_model_id"  # Ray Serve's: it sends a request where its model is loaded already


class ServedAdapter(Contract):
    """What has to be loaded for a model: names of base and encoder, and where the adapter lies in the object store."""

    base: str
    encoder: str
    adapter: str

    @property
    def key(self) -> str:
        """One line of ASCII, as it travels in ``MODEL_HEADER``; equal for what is loaded once."""
        return json.dumps([self.base, self.encoder, self.adapter])

    @classmethod
    def of_key(cls, key: str) -> ServedAdapter:
        """The adapter of a key; ``ValueError`` for what is none."""
        base, encoder, adapter = json.loads(key)
        return cls(base=base, encoder=encoder, adapter=adapter)


class ServerArgs(Contract):
    """How the model server is set up; travels as the arguments of its application in Ray Serve."""

    secret_sha256: str = Field(description="of the secret that requests carry: Ray shows these arguments to its users")
    max_replicas: int = Field(1, ge=1, le=1024)
    cpus: float = Field(1.0, ge=0, le=1024, description="of a replica; 0 reserves none and uses what is left")
    gpus: float = Field(0.0, ge=0, le=8, description="of a replica; a fraction shares a GPU")
    idle_seconds: float = Field(300.0, gt=0, description="without a request, after which a replica goes")


def secret_hash(secret: str) -> str:
    """SHA-256 of a secret, in hex; the secret is random and long, so that nothing is found out from it."""
    return hashlib.sha256(secret.encode()).hexdigest()
