"""Prompt templates by name."""

from __future__ import annotations

# Alpaca's, which the paper uses, and a short one that spends a quarter of its tokens.
TEMPLATES: dict[str, str] = {
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\n{instruction}\n\n### Response:"
    ),
    "short": "Question: {instruction}\nAnswer:",
}
CAPTION_INSTRUCTION = "Generate caption of this image"  # the released code's constant
