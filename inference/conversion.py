"""What a conversion is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from modules.console import UserError
from modules.f0 import F0_PREDICTORS

# Flag, lowest and highest value of what is a number.
RANGES = {
    "tran": ("-t", -60, 60),
    "slice_db": ("-sd", -120, -1),
    "noice_scale": ("-ns", 0, 10),
    "pad_seconds": ("-p", 0, 60),
    "clip_seconds": ("-cl", 0, 3600),
    "lg_num": ("-lg", 0, 30),
    "lgr_num": ("-lgr", 0.01, 1),
    "cr_threshold": ("-ft", 0, 1),
    "loudness_envelope_adjustment": ("-lea", 0, 1),
}


@dataclass(frozen=True)
class Conversion:
    """What one conversion shall do: the published names, order and defaults of ``slice_inference``.

    spk: speaker name or id. tran: semitones. slice_db: dB below which is silence. noice_scale: factor on the prior's
    noise (the spelling is the published one). pad_seconds: silence on both sides of each piece. clip_seconds: forced
    cuts (0: none). lg_num: cross-fade at them in seconds, of which the share lgr_num is blended. cr_threshold: voicing
    threshold of predictors that have one. loudness_envelope_adjustment: 1 keeps the output's envelope, 0 imposes the
    input's. seed: of all noise; the same seed gives the same song.

    Raises UserError for a value out of range, an unknown predictor, and for parts that this version does not have.
    """

    spk: str | int
    tran: float = 0
    slice_db: float = -40
    cluster_infer_ratio: float = 0
    auto_predict_f0: bool = False
    noice_scale: float = 0.4
    pad_seconds: float = 0.5
    clip_seconds: float = 0
    lg_num: float = 0
    lgr_num: float = 0.75
    f0_predictor: str = "pm"
    enhancer_adaptive_key: int = 0
    cr_threshold: float = 0.05
    k_step: int = 100
    use_spk_mix: bool = False
    second_encoding: bool = False
    loudness_envelope_adjustment: float = 1
    seed: int = 52468

    def __post_init__(self) -> None:
        refuse_absent_parts(
            cluster_infer_ratio=self.cluster_infer_ratio != 0,
            enhancer_adaptive_key=self.enhancer_adaptive_key != 0,
            k_step=self.k_step != 100,
            use_spk_mix=self.use_spk_mix,
            second_encoding=self.second_encoding,
        )
        F0_PREDICTORS[self.f0_predictor]  # refuses an unknown one
        for name, (flag, lowest, highest) in RANGES.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise UserError(f"{name} ({flag}) is {value}; it must be from {lowest} to {highest}")
        if self.clip_seconds and self.lg_num > self.clip_seconds:
            raise UserError(f"lg_num (-lg) is {self.lg_num} seconds; it must not exceed the {self.clip_seconds} of -cl")


def refuse_absent_parts(**asked: bool) -> None:
    """UserError naming the first argument that asks for a part of the program that is not there."""
    for argument, is_asked in asked.items():
        if is_asked:
            raise UserError(f"'{argument}' asks for a part that this version does not have; leave it out")
