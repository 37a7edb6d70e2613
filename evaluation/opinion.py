"""The opinion of a speech model about the quality of a sound: DNSMOS."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evaluation.judges import JUDGE_RATE, Judge


class SpeechOpinion(Judge):
    """C. Reddy et al., "DNSMOS P.835" (2022), with the networks of the package speechmos: 1 to 5, overall quality.

    The networks were trained on speech with and without noise, not on song: they rate song lower, and a gap between two
    conversions of the same song says more than a value.
    """

    def __init__(self):
        import onnxruntime
        from speechmos import dnsmos

        options = onnxruntime.SessionOptions()
        # Small networks: more threads, and threads that spin while they wait, take time from other processes.
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        folder = Path(dnsmos.__file__).parent / "dnsmos_models"
        self.model = dnsmos.DNSMOS.__new__(dnsmos.DNSMOS)  # its constructor opens the networks with all threads
        self.model.onnx_sess, self.model.p808_onnx_sess = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in ("sig_bak_ovr.onnx", "model_v8.onnx")
        )

    def __call__(self, audio: np.ndarray) -> float | None:
        if not len(audio):
            return None
        return float(self.model(np.asarray(audio, np.float32), JUDGE_RATE, False)["ovrl_mos"])
