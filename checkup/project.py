"""The project that is checked: its folders and configuration, and the commands that work on them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from checkup.finding import Finding, error, warnings_as_findings
from modules.console import UserError, option

if TYPE_CHECKING:
    from modules.config import Config, DiffusionConfig

RAW, CLIPS, CONFIG = Path("dataset_raw"), Path("dataset/44k"), Path("configs/config.json")
PRETRAIN, RUN = Path("pretrain"), Path("logs/44k")
RATE = 44100  # Hz; of the clips if no configuration says another

Item = TypeVar("Item")


def every_nth(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most ``most`` of the items, evenly spaced."""
    count = min(most, len(items))
    return [items[number * len(items) // count] for number in range(count)]


@dataclass
class Project:
    """A project in the current folder.

    Attributes:
        raw, clips_folder: the folders of recordings and clips.
        config_path: of config.json; diffusion.yaml lies beside it.
        picture: where to draw the sound of the data; None to leave that out.
        has_ffmpeg: whether ffmpeg is installed.
        config_findings: why a configuration cannot be used, and warnings about it.
        broken_weights: whether a weight file is missing or wrong, so that its size says nothing.
        broken_run: whether the section about training has an error of logs/44k, so that the one about conversion need
            not give it again.
    """

    raw: Path = RAW
    clips_folder: Path = CLIPS
    config_path: Path = CONFIG
    picture: Path | None = None
    has_ffmpeg: bool = True
    config_findings: list[Finding] = field(default_factory=list)
    broken_weights: bool = False
    broken_run: bool = False

    def refuse_missing_paths(self) -> None:
        """Raise UserError if a folder or configuration that is not the default does not exist."""
        if self.raw != RAW and not self.raw.is_dir():
            raise UserError(f"there is no folder {self.raw}; {option('in_dir')} takes the folder of the recordings")
        if self.clips_folder != CLIPS and not self.clips_folder.is_dir():
            raise UserError(
                f"there is no folder {self.clips_folder}; {option('source_dir')} takes the folder of the clips"
            )
        if self.config_path != CONFIG and not self.config_path.is_file():
            raise UserError(f"there is no {self.config_path}; {option('config')} takes the path of a config.json")

    @property
    def diffusion_path(self) -> Path:
        return self.config_path.with_name("diffusion.yaml")

    @cached_property
    def config(self) -> Config | None:
        """The configuration; None if it is missing or wrong."""
        from modules.config import load_config

        return self._load(self.config_path, load_config)

    @cached_property
    def diffusion(self) -> DiffusionConfig | None:
        """The diffusion's configuration; None if it is missing or wrong."""
        from modules.config import load_diffusion_config

        return self._load(self.diffusion_path, load_diffusion_config)

    @cached_property
    def model_config(self) -> Config | None:
        """The configuration, or that of the model in logs/44k if there is none."""
        from modules.config import load_config

        if self.config is not None:
            return self.config
        try:
            return load_config(RUN / "config.json")
        except UserError:
            return None

    @cached_property
    def encoder_flaw(self) -> str:
        """Why no encoder gives the features that the configuration's model takes; empty if one does."""
        from vencoder import encoder_key

        try:
            encoder_key(self.config.model.speech_encoder, self.config.model.ssl_dim, self.config_path)
        except UserError as failure:
            return str(failure)
        return ""

    @property
    def base_fetching(self) -> str:
        """The command that fetches the base model for the configuration; empty if none can be fetched."""
        from downloads.catalog import BASE_MODELS

        if self.config is None:
            return ""
        model = self.config.model
        key = model.speech_encoder + ("-vol" if model.vol_embedding else "")
        if model.use_depthwise_conv and model.flow_share_parameter:
            key = key.replace("vec768l12", "tiny")
        return f"python download_pretrain.py --base {key}" if key in BASE_MODELS else ""

    def _load(self, path: Path, reader):
        if not path.exists():
            return None
        cure = f"correct {path}, or write it anew with '{self.splitting} --fresh'"
        with warnings_as_findings(self.config_findings, f"correct {path}"):
            try:
                return reader(path)
            except UserError as failure:
                self.config_findings.append(error(str(failure), cure))
                return None

    @cached_property
    def speakers(self) -> dict[str, list[Path]]:
        """Speaker -> clips; empty if there is no folder of clips."""
        from modules.data.features import find_clips

        try:
            return find_clips(self.clips_folder)
        except UserError:
            return {}

    @cached_property
    def clips(self) -> list[Path]:
        """All clips."""
        return [clip for clips in self.speakers.values() for clip in clips]

    @property
    def sampling_rate(self) -> int:
        return self.config.data.sampling_rate if self.config else RATE

    @property
    def lists(self) -> tuple[Path, Path]:
        """The training and the validation list."""
        if self.config is None:
            return Path("filelists/train.txt"), Path("filelists/val.txt")
        return Path(self.config.data.training_files), Path(self.config.data.validation_files)

    # The stages' commands on these folders.

    @property
    def resampling(self) -> str:
        out_dir = _flag("out_dir2", self.clips_folder, CLIPS)
        return f"python resample.py{_flag('in_dir', self.raw, RAW)}{out_dir}"

    @property
    def resampling_anew(self) -> str:
        return f"{self.resampling} --sr2 {self.sampling_rate}"

    @property
    def pruning(self) -> str:
        return f"{self.resampling} --prune"

    @property
    def splitting(self) -> str:
        return f"python preprocess_flist_config.py{_flag('source_dir', self.clips_folder, CLIPS)}"

    @property
    def feature_making(self) -> str:
        return f"python preprocess_hubert_f0.py{_flag('in_dir', self.clips_folder, CLIPS)}"

    @property
    def feature_making_for_diffusion(self) -> str:
        return f"{self.feature_making} --use_diff"

    @property
    def conversion(self) -> str:
        speakers = list(self.model_config.spk) if self.model_config else []
        speaker = f" -s {shlex.quote(speakers[0])}" if len(speakers) > 1 else ""
        return f"python inference_main.py -n song.wav{speaker}"

    @property
    def training(self) -> str:
        config = "" if self.config_path == CONFIG else f" -c {shlex.quote(str(self.config_path))}"
        return f"python train.py{config} -m 44k"


def _flag(name: str, folder: Path, default: Path) -> str:
    return "" if folder == default else f" --{name} {shlex.quote(str(folder))}"
