"""The settings of a conversion, and the stages that it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modules.console import UserError, option
from modules.f0 import F0_PREDICTORS

if TYPE_CHECKING:
    from inference.f0_curve import F0Curve


def within(default: float | None, lowest: float, highest: float) -> Any:
    """Return a field whose value must lie between two numbers, inclusive, for ``check_ranges``."""
    return field(default=default, metadata={"range": (lowest, highest)})


def check_ranges(settings: Any) -> None:
    """Raise UserError if a field made by ``within`` is out of its range; None is no value, and always in it."""
    for setting in dataclasses.fields(settings):
        lowest, highest = setting.metadata.get("range", (None, None))
        value = getattr(settings, setting.name)
        if lowest is not None and value is not None and not lowest <= value <= highest:
            raise UserError(f"{option(setting.name)} is {value}; it must be from {lowest} to {highest}")


@dataclass(frozen=True)
class Conversion:
    """The settings of one conversion: the published names, order and defaults of ``slice_inference``.

    One default differs: ``f0_predictor`` is published as pm, which puts bright high notes an octave low
    (benchmarks/README.md). The flags of inference_main.py and the functions of ``Svc`` take their defaults from here.

    Attributes:
        spk: speaker name or id; with ``use_spk_mix`` a map of speaker mixes (inference/speaker_mix.py).
        tran: shift in semitones.
        slice_db: level in dB below which sound is silence.
        cluster_infer_ratio: how far content is moved towards the speaker's own, 0 to 1.
        auto_predict_f0: the model predicts the pitch.
        noice_scale: factor on the prior's noise (the spelling is the published one).
        pad_seconds: silence added on both sides of each piece.
        clip_seconds: distance of forced cuts; 0 for none.
        lg_num, lgr_num: seconds of cross-fade at forced cuts, and the share of it that is blended.
        f0_predictor, cr_threshold: key of the predictor, and its voicing threshold if it has one.
        enhancer_adaptive_key: semitones by which the song is lowered for the enhancer.
        k_step: depth of the shallow diffusion.
        second_encoding: take the content for the diffusion from the synthesizer's output.
        loudness_envelope_adjustment: 1 keeps the output's envelope, 0 imposes the input's.
        seed: seed of all random numbers; the same seed gives the same song.
        f0_curve: F0 of the song, in place of the predictor's; ``tran`` shifts it.

    Raises UserError for a value out of range, values that exclude each other, and an unknown predictor.
    """

    spk: str | int | Mapping
    tran: float = within(0, -60, 60)
    slice_db: float = within(-40, -120, -1)
    cluster_infer_ratio: float = within(0, 0, 1)
    auto_predict_f0: bool = False
    noice_scale: float = within(0.4, 0, 10)
    pad_seconds: float = within(0.5, 0, 60)
    clip_seconds: float = within(0, 0, 3600)
    lg_num: float = within(0, 0, 30)
    lgr_num: float = within(0.75, 0.01, 1)
    f0_predictor: str = "fcpe"
    enhancer_adaptive_key: int = within(0, -48, 48)
    cr_threshold: float = within(0.05, 0, 1)
    k_step: int = within(100, 1, 10000)
    use_spk_mix: bool = False
    second_encoding: bool = False
    loudness_envelope_adjustment: float = within(1, 0, 1)
    seed: int = within(52468, 0, 2**32 - 1)
    f0_curve: F0Curve | None = None

    def __post_init__(self) -> None:
        F0_PREDICTORS[self.f0_predictor]  # raises UserError for an unknown key
        check_ranges(self)
        if self.clip_seconds and self.lg_num > self.clip_seconds:
            raise UserError(
                f"{option('lg_num')} is {self.lg_num} seconds; it must not exceed the {self.clip_seconds} of "
                f"{option('clip_seconds')}"
            )


@dataclass(frozen=True)
class Pipeline:
    """The stages of a conversion beside, or in place of, the synthesizer.

    Raises UserError for stages that exclude each other.
    """

    enhancer: bool = False
    shallow_diffusion: bool = False
    only_diffusion: bool = False
    onnx: bool = False  # the synthesizer is an ONNX graph

    def __post_init__(self) -> None:
        if self.only_diffusion and self.enhancer:
            raise UserError(
                f"{option('nsf_hifigan_enhance')} enhances the synthesizer's output, which "
                f"{option('only_diffusion')} leaves out; leave one of them out"
            )
        if self.only_diffusion and self.onnx:
            raise UserError(
                f"{option('onnx')} is a synthesizer, which {option('only_diffusion')} leaves out; leave one of them out"
            )

    @property
    def kind(self) -> str:
        """The name of the pipeline in the names of results, as published."""
        return "diff" if self.only_diffusion else "sovdiff" if self.shallow_diffusion else "sovits"

    @property
    def ignored(self) -> list[str]:
        """A sentence for each requested stage that is left out, as published."""
        shallow, only, enhance = map(option, ("shallow_diffusion", "only_diffusion", "nsf_hifigan_enhance"))
        sentences = {
            f"shallow diffusion ({shallow}) regenerates the sound; the enhancer ({enhance}) is left out": (
                self.shallow_diffusion and self.enhancer
            ),
            f"{only} leaves the synthesizer out, so there is nothing to refine; {shallow} has no effect": (
                self.shallow_diffusion and self.only_diffusion
            ),
        }
        return [sentence for sentence, applies in sentences.items() if applies]

    def refuse_missing(self, conversion: Conversion) -> None:
        """Raise UserError if a setting needs a stage that the pipeline lacks."""
        only, shallow, auto, second = map(
            option, ("only_diffusion", "shallow_diffusion", "auto_predict_f0", "second_encoding")
        )
        rules = {
            f"{auto} takes the pitch from the synthesizer, which {only} leaves out; leave {auto} out": (
                conversion.auto_predict_f0 and self.only_diffusion
            ),
            f"{auto} takes the pitch from a part of the synthesizer that its ONNX graph lacks; leave {auto} or "
            f"{option('onnx')} out": conversion.auto_predict_f0 and self.onnx,
            f"{second} encodes the synthesizer's output for the diffusion; it needs {shallow}, without "
            f"{only}": conversion.second_encoding and (self.only_diffusion or not self.shallow_diffusion),
            f"{option('enhancer_adaptive_key')} is the enhancer's key; it needs {option('nsf_hifigan_enhance')}": (
                conversion.enhancer_adaptive_key and not self.enhancer
            ),
        }
        for sentence, is_broken in rules.items():
            if is_broken:
                raise UserError(sentence)
