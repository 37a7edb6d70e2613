"""What a conversion is asked to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.console import UserError
from modules.f0 import F0_PREDICTORS


def within(default: float, flag: str, lowest: float, highest: float) -> Any:
    """A number between two others, set by a flag of the script."""
    return field(default=default, metadata={"flag": flag, "range": (lowest, highest)})


@dataclass(frozen=True)
class Conversion:
    """What one conversion shall do: the published names, order and defaults of ``slice_inference``.

    One default differs: ``f0_predictor`` is published as pm, which puts bright high notes an octave low
    (benchmarks/README.md). The flags of inference_main.py and the functions of ``Svc`` take their defaults from here.

    Attributes:
        spk: speaker name or id; with ``use_spk_mix`` a map of speaker mixes (inference/speaker_mix.py).
        tran: semitones.
        slice_db: dB below which is silence.
        cluster_infer_ratio: share of the content that is drawn towards the speaker's own, 0 to 1.
        auto_predict_f0: let the model choose the pitch.
        noice_scale: factor on the prior's noise (the spelling is the published one).
        pad_seconds: silence on both sides of each piece.
        clip_seconds: forced cuts; 0: none.
        lg_num, lgr_num: seconds of cross-fade at them, and the share of these that is blended.
        f0_predictor, cr_threshold: the predictor, and the voicing threshold of those that have one.
        enhancer_adaptive_key: semitones by which the enhancer hears the song lower.
        k_step: depth of the shallow diffusion.
        second_encoding: take the content for the diffusion from what the synthesizer sang.
        loudness_envelope_adjustment: 1 keeps the output's envelope, 0 imposes the input's.
        seed: of all noise; the same seed gives the same song.

    Raises UserError for a value out of range, values that do not go together, and an unknown predictor.
    """

    spk: str | int | Mapping
    tran: float = within(0, "-t", -60, 60)
    slice_db: float = within(-40, "-sd", -120, -1)
    cluster_infer_ratio: float = within(0, "-cr", 0, 1)
    auto_predict_f0: bool = False
    noice_scale: float = within(0.4, "-ns", 0, 10)
    pad_seconds: float = within(0.5, "-p", 0, 60)
    clip_seconds: float = within(0, "-cl", 0, 3600)
    lg_num: float = within(0, "-lg", 0, 30)
    lgr_num: float = within(0.75, "-lgr", 0.01, 1)
    f0_predictor: str = "fcpe"
    enhancer_adaptive_key: int = within(0, "-eak", -48, 48)
    cr_threshold: float = within(0.05, "-ft", 0, 1)
    k_step: int = within(100, "-ks", 1, 10000)
    use_spk_mix: bool = False
    second_encoding: bool = False
    loudness_envelope_adjustment: float = within(1, "-lea", 0, 1)
    seed: int = within(52468, "--seed", 0, 2**32 - 1)

    def __post_init__(self) -> None:
        F0_PREDICTORS[self.f0_predictor]  # refuses an unknown one
        for setting in dataclasses.fields(self):
            lowest, highest = setting.metadata.get("range", (None, None))
            value = getattr(self, setting.name)
            if lowest is not None and not lowest <= value <= highest:
                flag = setting.metadata["flag"]
                raise UserError(f"{setting.name} ({flag}) is {value}; it must be from {lowest} to {highest}")
        if self.clip_seconds and self.lg_num > self.clip_seconds:
            raise UserError(f"lg_num (-lg) is {self.lg_num} seconds; it must not exceed the {self.clip_seconds} of -cl")


@dataclass(frozen=True)
class Parts:
    """Which parts of the program a conversion goes through beside, or in place of, the synthesizer.

    Raises UserError for parts that exclude each other.
    """

    enhancer: bool = False
    shallow_diffusion: bool = False
    only_diffusion: bool = False
    onnx: bool = False  # the synthesizer is a graph

    def __post_init__(self) -> None:
        if self.only_diffusion and self.enhancer:
            raise UserError("-eh enhances what the synthesizer sings, which -od leaves out; leave one of them out")
        if self.only_diffusion and self.onnx:
            raise UserError("--onnx is a synthesizer, which -od leaves out; leave one of them out")

    @property
    def kind(self) -> str:
        """What names of results call it, as published."""
        return "diff" if self.only_diffusion else "sovdiff" if self.shallow_diffusion else "sovits"

    @property
    def without_effect(self) -> list[str]:
        """A sentence for each part that is asked for but left out, as published."""
        sentences = {
            "shallow diffusion (-shd) makes the sound anew itself; the enhancer (-eh) is left out": (
                self.shallow_diffusion and self.enhancer
            ),
            "-od leaves the synthesizer out, so there is nothing to refine; -shd has no effect": (
                self.shallow_diffusion and self.only_diffusion
            ),
        }
        return [sentence for sentence, applies in sentences.items() if applies]

    def refuse_missing(self, conversion: Conversion) -> None:
        """UserError when a setting asks for something of a part that does not take part."""
        rules = {
            "-a takes the pitch from the synthesizer, which -od leaves out; leave -a out": (
                conversion.auto_predict_f0 and self.only_diffusion
            ),
            "-a takes the pitch from a part of the synthesizer that its ONNX graph lacks; leave -a or --onnx out": (
                conversion.auto_predict_f0 and self.onnx
            ),
            "-se encodes what the synthesizer sings for the diffusion after it; it needs -shd, without -od": (
                conversion.second_encoding and (self.only_diffusion or not self.shallow_diffusion)
            ),
            "-eak is the enhancer's key; it needs -eh": conversion.enhancer_adaptive_key and not self.enhancer,
        }
        for sentence, is_broken in rules.items():
            if is_broken:
                raise UserError(sentence)
