"""Windows over long sequences, and the encoder that uses them."""

import pytest
import torch

from modules.windows import plan_windows
from vencoder.encoder import CONTEXT, HOP_LENGTH, SAMPLING_RATE, SpeechEncoder


@pytest.mark.parametrize("frames", [1, 2, 99, 100, 101, 1234])
@pytest.mark.parametrize("longest", [1, 7.5, 100, float("inf")])
@pytest.mark.parametrize("context", [0, 5, 1000])
def test_kept_frames_are_all_frames_in_order(frames, longest, context):
    windows = plan_windows(frames, longest, context)
    kept = [frame for first, last, keep in windows for frame in range(first, last)[keep]]
    assert kept == list(range(frames))
    assert max(len(range(first, last)[keep]) for first, last, keep in windows) <= max(1, longest)
    for first, last, keep in windows:
        assert keep.start == min(context, first + keep.start)
        assert last - first - keep.stop == min(context, frames - first - keep.stop)


class Loudness(SpeechEncoder):
    """Each frame is the mean of its 25 ms, and the number of samples that were encoded together."""

    def __init__(self, padding=0):
        super().__init__("loudness", 2)
        self.padding = padding

    def features(self, audio):
        padded = torch.nn.functional.pad(audio, (self.padding, self.padding))
        means = padded.unfold(0, 400, HOP_LENGTH).mean(dim=1)
        return torch.stack([means, torch.full_like(means, len(audio))])


@pytest.mark.parametrize("samples", [160_000, 160_319, 400, 123])
def test_frames_of_segments_lie_where_those_of_one_pass_do(samples):
    audio = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    encoder = Loudness()
    whole, cut = encoder(audio), encoder.encode_in_segments(audio, 1.5)
    assert cut.shape == whole.shape
    torch.testing.assert_close(cut[:, 0], whole[:, 0])
    if samples > 2 * SAMPLING_RATE:
        assert cut[0, 1].max() <= (1.5 + 2 * CONTEXT + 0.1) * SAMPLING_RATE


def test_an_encoder_that_bounds_its_memory_gets_the_whole():
    encoder = Loudness()
    encoder.bounds_memory = True
    assert encoder.encode_in_segments(torch.zeros(160_000), 1)[0, 1].unique().tolist() == [160_000]


class Neighbourhood(Loudness):
    """Each frame is the mean of 2.5 s around it."""

    def features(self, audio):
        means = super().features(audio)[:1]
        return torch.nn.functional.avg_pool1d(means[None], 125, 1, 62)[0].repeat(2, 1)


def test_segments_have_context_on_both_sides():
    audio = torch.randn(12 * SAMPLING_RATE, generator=torch.Generator().manual_seed(0))
    encoder = Neighbourhood()
    torch.testing.assert_close(encoder.encode_in_segments(audio, 2), encoder(audio))
