"""Adapters from one format into another: ``python -m ibllm_core.adapter --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ibllm_core.adapter import files
from ibllm_core.adapter.merged import write_merged
from ibllm_core.adapter.peft_folder import write_peft
from ibllm_core.adapter.reading import read_adapter
from ibllm_core.adapter.released import write_released
from ibllm_core.errors import CoreError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main(words: Sequence[str]) -> int:
    """Run one command; what cannot be done is said in a sentence, with exit status 1."""
    options = _parser().parse_args(words)
    try:
        adapter = read_adapter(options.adapter)
        match options.command:
            case "ours":
                files.write(options.out, adapter)
            case "released":
                write_released(options.out, adapter)
            case "peft":
                write_peft(options.out, adapter)
            case "merged":
                write_merged(
                    options.out, options.base, adapter, dtype=DTYPES[options.dtype], text_only=options.text_only
                )
    except CoreError as error:
        sys.stderr.write(error.message + "\n")
        return 1
    if options.command == "show":
        sys.stdout.write(adapter.header.model_dump_json(indent=2) + "\n")
        sys.stdout.write(f"{sum(t.numel() for t in adapter.tensors.values()):,} parameters\n")
    else:
        sys.stdout.write(f"{options.out}: the {adapter.header.stage} adapter of {adapter.header.base}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ibllm_core.adapter", description="Adapters in and out.")
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "show": "what an adapter is, and what it was made from",
        "ours": "as a folder with adapter.safetensors",
        "released": "as a .pth of the released layout",
        "peft": "its LoRA, as a folder that peft loads",
        "merged": "folded into its base, as a LlamaForCausalLM folder",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("adapter", type=Path, help="our folder, or a released .pth")
        if name == "merged":
            command.add_argument("base", type=Path, help="safetensors folder, GGUF file or Meta's folder")
            command.add_argument("--dtype", choices=DTYPES, default="float32")
            command.add_argument("--text-only", action="store_true", help="leave the media part out")
        if name != "show":
            command.add_argument("out", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
