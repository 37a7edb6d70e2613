"""F0 by the ONNX graph that ``onnx_export.py --f0`` writes, in place of ``rmvpe`` or ``fcpe``."""

from __future__ import annotations

import numpy as np
import torch

from modules.audio.files import sinc_resample
from modules.console import UserError, get_logger
from modules.f0 import F0Predictor
from modules.f0.contour import resize_nearest
from modules.f0.salience import ZERO_CROSSINGS, SaliencePredictor
from modules.onnx.session import open_session, run

SOUND = ("waveform", "audio")  # names of the input; the second in graphs of earlier versions
THRESHOLD = "threshold"
CURE = "make it anew with onnx_export.py --f0"

log = get_logger("f0")


class GraphPredictor(F0Predictor):
    """F0 by the graph in the file ``weight``, which processes the whole audio at once.

    The graphs that MoeVoiceStudio reads have the same form and are used as well. Raises UserError when onnxruntime is
    not installed, the file is no such graph, or the graph fails on the audio.
    """

    network_rate, window = SaliencePredictor.network_rate, SaliencePredictor.window

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.session = open_session(self.weight, torch.device(self.device))
        inputs = {one.name for one in self.session.get_inputs()}
        sound = inputs - {THRESHOLD}
        if len(sound) != 1 or not sound <= set(SOUND):
            found = ", ".join(sorted(inputs))
            raise UserError(f"{self.weight} takes {found}, not waveform and threshold; {CURE}")
        (self.sound,) = sound
        inputs |= {one.name for one in self.session.get_overridable_initializers()}
        self.takes_threshold = THRESHOLD in inputs
        if not self.takes_threshold:
            log.warning("%s has a threshold of its own, and the given one has no effect; %s", self.weight, CURE)

    def contour(self, audio: np.ndarray, frames: int) -> np.ndarray:
        if len(audio) * self.network_rate < self.window * self.sampling_rate or not audio.any():
            return np.zeros(frames, np.float32)
        wave = sinc_resample(torch.from_numpy(audio), self.sampling_rate, self.network_rate, ZERO_CROSSINGS).numpy()
        values = {self.sound: wave[None]}
        if self.takes_threshold:
            values[THRESHOLD] = np.array([self.threshold], np.float32)
        f0 = run(self.session, self.weight, ["f0"], values, CURE)[0].reshape(-1)
        if not np.isfinite(f0).all():
            raise UserError(f"{self.weight} gives F0 that is not finite; the file is damaged, export it again")
        return resize_nearest(f0, frames)
