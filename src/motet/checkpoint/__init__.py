"""Checkpoint folders of gpt-oss: opening both published layouts without copying weights, and writing either one.

Knows the safetensors format, OpenAI's `original/` names and Hugging Face's names, the shape each tensor must have, and
experts as MXFP4 blocks and scales or as plain numbers. Does not know kernels, packs, vocabularies, or random weights.
Names in this interface are OpenAI's whatever the folder holds (openai/gpt-oss `torch/model.py`, `torch/weights.py`;
huggingface/transformers `models/gpt_oss/convert_gpt_oss_weights_to_hf.py`).
"""

from __future__ import annotations

from motet.checkpoint.names import CheckpointError, Source, Tensor, UnknownTensor, tensor_shapes
from motet.checkpoint.read import Checkpoint, open_checkpoint
from motet.checkpoint.write import SHARD_BYTES, Progress, write_checkpoint

__all__ = ["Checkpoint", "open_checkpoint", "write_checkpoint", "tensor_shapes", "Tensor", "Source",
           "CheckpointError", "UnknownTensor", "Progress", "SHARD_BYTES"]  # fmt: skip
