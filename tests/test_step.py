"""vits/step.py: an optimised step equals the step of the plain formulas."""

import copy
import re

import pytest
import torch

from benchmarks.train_step import write_plainly
from modules.audio.spectrogram import linear_spectrogram
from tests.tiny import HOP, tiny_config
from vits.dataset import Batch
from vits.discriminator import scores_of
from vits.step import FRAME_MULTIPLE, Learner, mel_of
from vits.synthesizer import cut_slices
from vits.training_log import TrainingLog


def learner_of(*, f0_decoder=False, volume=False, periods=(2, 3), **train):
    config = tiny_config(eps=1e-3, **train)  # so large that an update is a smooth function of the gradient
    config.model.p_dropout = 0.0  # its random numbers depend on the memory layout
    config.model.use_automatic_f0_prediction, config.model.vol_embedding = f0_decoder, volume
    config.model.discriminator_periods = list(periods)
    torch.manual_seed(0)
    learner = Learner(config, torch.device("cpu"))
    with torch.no_grad():  # couplings that do something
        for parameter in learner.net_g.flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return learner


def batch_of(volume=False, lengths=(20, 14)):
    generator = torch.Generator().manual_seed(1)
    frames = max(lengths)
    there = (torch.arange(frames) < torch.tensor(lengths)[:, None]).float()
    audio = 0.1 * torch.randn(len(lengths), frames * HOP, generator=generator) * there.repeat_interleave(HOP, dim=1)
    return Batch(
        c=torch.randn(len(lengths), 8, frames, generator=generator) * there[:, None],
        f0=(200 + 50 * torch.rand(len(lengths), frames, generator=generator)) * there,
        uv=there,
        spec=linear_spectrogram(audio, 2048, HOP, 2048) * there[:, None],
        audio=audio[:, None],
        speaker_id=torch.tensor([[0], [1]]),
        lengths=torch.tensor(lengths),
        volume=0.1 * torch.rand(len(lengths), frames, generator=generator) * there if volume else None,
    )


class Reference:
    """The step in plain formulas, with PyTorch's own convolutions and the formula of AdamW's first step."""

    def __init__(self, learner):
        self.config = learner.config
        self.net_g, self.net_d = copy.deepcopy(learner.net_g), copy.deepcopy(learner.net_d)
        write_plainly(self.net_g)
        write_plainly(self.net_d)

    def step(self, batch):
        train, data = self.config.train, self.config.data
        out = self.net_g(batch.c, batch.f0, batch.uv, batch.spec, batch.speaker_id, batch.lengths, batch.volume)
        real = cut_slices(batch.audio, out.slice_starts * HOP, train.segment_size)
        wanted_mel = mel_of(batch.audio, data)[:, :, : batch.spec.shape[2]]
        wanted_mel = cut_slices(wanted_mel, out.slice_starts, train.segment_size // HOP)

        of_real, of_fake = scores_of(self.net_d(real)), scores_of(self.net_d(out.audio.detach()))
        loss_d = sum(((1 - r) ** 2).mean() + (f**2).mean() for r, f in zip(of_real, of_fake, strict=True))
        self.update(self.net_d, loss_d)

        maps_of_real, maps = self.net_d(real), self.net_d(out.audio)
        adversarial = sum(((1 - score) ** 2).mean() for score in scores_of(maps))
        feature = 2 * sum(
            (a.detach() - b).abs().mean()
            for of_one, of_other in zip(maps_of_real, maps, strict=True)
            for a, b in zip(of_one, of_other, strict=True)
        )
        mel = (wanted_mel - mel_of(out.audio, data)).abs().mean() * train.c_mel
        divergence = out.logs_p - out.logs_q - 0.5 + 0.5 * (out.z_p - out.m_p) ** 2 * torch.exp(-2 * out.logs_p)
        kl = (divergence * out.mask).sum() / out.mask.sum() * train.c_kl
        lf0 = torch.zeros(()) if out.pred_lf0 is None else ((out.pred_lf0 - out.lf0) ** 2).mean()
        self.update(self.net_g, adversarial + feature + mel + kl + lf0)
        return dict(discriminator=loss_d, adversarial=adversarial, fm=feature, mel=mel, kl=kl, lf0=lf0)

    def update(self, net, loss):
        train = self.config.train
        gradients = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True)
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            parameter.grad = gradient
            if gradient is None:
                continue
            with torch.no_grad():
                parameter.mul_(1 - train.learning_rate * 0.01)
                parameter.sub_(train.learning_rate * gradient / (gradient.abs() + train.eps))


@pytest.mark.parametrize("volume", [False, True])
@pytest.mark.parametrize("f0_decoder", [False, True])
def test_a_step_has_the_losses_gradients_and_new_weights_of_the_plain_formulas(f0_decoder, volume):
    learner, batch = learner_of(f0_decoder=f0_decoder, volume=volume), batch_of(volume)
    reference = Reference(learner)
    torch.manual_seed(2)
    wanted = reference.step(batch)
    torch.manual_seed(2)
    _, got = learner.step(batch)
    for name, loss in wanted.items():
        torch.testing.assert_close(got.by_name()[name], loss.detach(), rtol=1e-4, atol=1e-5, msg=name)
    for ours, plain, norm in (
        (learner.net_d, reference.net_d, got.grad_norm_d),
        (learner.net_g, reference.net_g, got.grad_norm_g),
    ):
        whole = torch.stack([p.grad.norm() for p in plain.parameters() if p.grad is not None]).norm()
        torch.testing.assert_close(norm, whole, rtol=1e-4, atol=0)
        for (name, parameter), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
            assert (parameter.grad is None) == (other.grad is None), name
            if parameter.grad is not None:
                error = (parameter.grad - other.grad).norm() / (other.grad.norm() + 1e-4 * whole)
                assert error < 1e-3, (name, float(error))
                torch.testing.assert_close(parameter, other, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("f0_decoder", [False, True])
def test_padding_beyond_the_longest_clip_changes_nothing(f0_decoder, monkeypatch):
    found = []
    for multiple in (1, FRAME_MULTIPLE):
        learner, batch = learner_of(f0_decoder=f0_decoder), batch_of().padded(multiple)
        assert batch.f0.shape == batch.c.shape[::2] == batch.spec.shape[::2] and batch.f0.shape[1] % multiple == 0
        assert batch.audio.shape[2] == HOP * batch.f0.shape[1]
        with monkeypatch.context() as patch:  # random numbers depend on the shape
            patch.setattr(torch, "randn", lambda *shape, generator=None, **options: torch.zeros(*shape, **options))
            patch.setattr(torch, "rand", torch.randn)
            patch.setattr(torch.Tensor, "uniform_", lambda tensor, *_: tensor.fill_(1.0))
            _, losses = learner.step(batch)
        found.append({name: float(value) for name, value in losses.by_name().items()})
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_compiled_networks_are_one_graph_each_without_recompiling_and_train_the_same(monkeypatch):
    compile_module = torch.nn.Module.compile

    def traced(module, *, dynamic, options):  # traces without generating kernels
        compile_module(module, dynamic=dynamic, fullgraph=True, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    compiled, plain = (learner_of(periods=[3]) for _ in range(2))
    compiled.compile()
    for number, lengths in enumerate([(20, 14), (20, 14), (31, 9)]):
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            _, got = compiled.step(batch_of(lengths=lengths), number=number)
        _, wanted = plain.step(batch_of(lengths=lengths), number=number)
        found = [{name: float(value) for name, value in losses.by_name().items()} for losses in (got, wanted)]
        assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_the_generators_step_leaves_the_discriminators_gradients_alone():
    learner = learner_of()
    generated = learner.generate(batch_of())
    learner.discriminator_step([generated])
    before = [parameter.grad.clone() for parameter in learner.net_d.parameters()]
    learner.generator_step([generated], adversarial=True)
    assert all(torch.equal(p.grad, wanted) for p, wanted in zip(learner.net_d.parameters(), before, strict=True))
    assert all(part.held is None for part in learner.net_d.modules() if hasattr(part, "held"))


def test_a_half_precision_step_equals_plain_autocast_and_keeps_weights_in_float32():
    half, plain = (learner_of(fp16_run=True, half_type="bf16") for _ in range(2))
    write_plainly(plain.net_g)
    write_plainly(plain.net_d)
    torch.manual_seed(2)
    _, wanted = plain.step(batch_of())
    torch.manual_seed(2)
    _, got = half.step(batch_of())
    for name, loss in wanted.by_name().items():
        assert float(got.by_name()[name]) == pytest.approx(float(loss), rel=0.01), name
    for net in (half.net_g, half.net_d):
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in net.parameters() if p.grad is not None)


def test_a_gradient_that_is_not_finite_changes_nothing_in_its_network():
    learner, batch = learner_of(), batch_of()
    learner.step(batch)
    before = copy.deepcopy((learner.net_g.state_dict(), learner.optim_g.state_dict()["state"]))
    batch.spec[0, 0, 0] = float("nan")
    _, losses = learner.step(batch)
    assert not losses.grad_norm_g.isfinite()
    after = learner.net_g.state_dict(), learner.optim_g.state_dict()["state"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_an_added_loss_is_trained_on_and_logged_under_its_name(tmp_path, monkeypatch):
    learner, logged = learner_of(), {}
    losses_of = learner.generator_losses
    monkeypatch.setattr(learner, "generator_losses", lambda *a, **o: {**losses_of(*a, **o), "extra": torch.tensor(7.0)})
    preview, losses = learner.step(batch_of())
    assert losses.total - sum(loss for name, loss in losses.generator.items() if name != "extra") == pytest.approx(7)
    training_log = TrainingLog(tmp_path)
    monkeypatch.setattr(training_log.writer, "add_scalar", lambda tag, value, step: logged.update({tag: value}))
    training_log.log_step(1, 1, 0.0, 1e-4, losses, preview, preview.target_mel)
    training_log.close()
    published = {f"loss/g/{name}" for name in ("total", "fm", "mel", "kl", "lf0")}
    assert {tag for tag in logged if tag.startswith("loss/g/")} == published | {"loss/g/extra"}
    line = re.search(r"Losses: \[(.*?)\]", (tmp_path / "train.log").read_text(encoding="utf-8"))
    assert len(line[1].split(",")) == 6 and line[1].endswith("7.0")
