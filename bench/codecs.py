"""Decoders of speech and sound as the package transformers has them, with random weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.decoders import Decoder

__all__ = ["CODECS", "codec"]


def _encodec() -> nn.Module:
    from transformers import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecDecoder

    return EncodecDecoder(EncodecConfig())


def _dac() -> nn.Module:
    from transformers import DacConfig
    from transformers.models.dac.modeling_dac import DacDecoder

    return DacDecoder(DacConfig())


def _mimi() -> nn.Module:
    from transformers import MimiConfig
    from transformers.models.mimi.modeling_mimi import MimiDecoder

    return MimiDecoder(MimiConfig())


def _speech() -> nn.Module:
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    return SpeechT5HifiGan(SpeechT5HifiGanConfig())


_MAKERS: dict[str, tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = {
    "encodec": ("EnCodec's decoder, 1 s", _encodec, (1, 128, 75)),
    "dac": ("DAC's decoder, 0.5 s", _dac, (1, 1024, 43)),
    "mimi": ("Mimi's decoder, 2 s", _mimi, (1, 512, 25)),
    "speech": ("SpeechT5's HiFi-GAN, 60 frames", _speech, (60, 80)),
}
CODECS = {
    name: Decoder(title, lambda _, make=make: make(), 0, shape)
    for name, (title, make, shape) in _MAKERS.items()
}
"""Défossez 2022 (arXiv:2210.13438), Kumar 2023 (2306.06546), Défossez 2024 (2410.00037), Ao 2021
(2110.07205). They have no other widths."""


def codec(name: str, dtype: Any = torch.float32) -> tuple[nn.Module, Tensor]:
    """A decoder and its input, the same each time."""
    torch.manual_seed(0)
    model = CODECS[name].make(0)
    return model.to(dtype), torch.randn(CODECS[name].shape).to(dtype)
