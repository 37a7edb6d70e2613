"""The folder of MoeVoiceStudio: one model with everything that the host needs to sing with it.

Models/<name>.json, Models/<name>/<name>_SoVits.onnx    the synthesizer
Models/<name>_diffusion.json, Models/<name>/<name>_encoder.onnx, ...    its diffusion model
Models/<name>/Index-<place>.index or KMeans.npy         its feature index or cluster centres
hubert/<Hubert>.onnx, hifigan/<Hifigan>.onnx, MelOps.onnx, F0Predictor/RMVPE.onnx and MELPE.onnx
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from diffusion.saved_models import diffusion_checkpoints
from modules.atomic_file import output_path
from modules.config import load_config, load_diffusion_config
from modules.console import UserError, get_logger
from modules.f0 import F0_PREDICTORS
from onnxexport.diffusion import export_diffusion
from onnxexport.encoders import SOURCE_KEYS, export_encoder
from onnxexport.f0 import GRAPHS, export_f0
from onnxexport.mel import FILE
from onnxexport.metadata import diffusion_json
from onnxexport.synthesizer import export_synthesizer
from onnxexport.timbre import export_centres, export_index
from onnxexport.vocoder import export_vocoder, vocoder_graph_name
from vencoder import ENCODERS, encoder_key, graph_file

INDEX, CENTRES = "feature_and_index.pkl", "kmeans_10000.pt"
VOCODER = Path("nsf_hifigan/model")  # below the folder of weight files

log = get_logger("onnx")


@dataclass
class HostFolder:
    """Lays one model's files.

    Attributes:
        folder: the host's.
        name: the model's folder and JSON in the host.
        model, config: the synthesizer's checkpoint and config.json. Its diffusion model is looked for beside it or in
            the folder ``diffusion`` there, its index and its centres beside it.
        pretrain: the folder of weight files. A graph there is copied if its weight file is missing.
        precision: of all graphs.
        missing: what could not be laid, as clauses.
    """

    folder: Path
    name: str
    model: Path
    config: Path
    pretrain: Path
    precision: str = "fp32"
    missing: list[str] = field(default_factory=list)

    def lay(self) -> bool:
        """Write all files whose sources exist, each whole or not at all, and log what is missing.

        Returns whether the host can sing with them: whether every encoder is there. Raises UserError if a source is
        damaged or does not fit the others, or a file cannot be written.
        """
        config = load_config(self.config)
        encoders = {(config.model.speech_encoder, config.model.ssl_dim): self.config}
        self._lay_timbre()
        vocoder, kind = self.pretrain / VOCODER, "nsf-hifigan"
        if found := self._find_diffusion():
            model, path = found
            settings = load_diffusion_config(path)
            encoders.setdefault((settings.data.encoder, settings.data.encoder_out_channels), path)
            vocoder, kind = Path(settings.vocoder.ckpt), settings.vocoder.type
            metadata = diffusion_json(self.metadata)
            export_diffusion(model, path, self.models / self.name, metadata, list(config.spk), self.precision)
        export_synthesizer(
            self.model, self.config, self.models / f"{self.name}_SoVits.onnx", self.metadata, self.name, self.precision
        )
        self._lay_vocoder(vocoder, kind)
        self._lay_f0_networks()
        sings = all([self._lay_encoder(*encoder, path) for encoder, path in encoders.items()])
        for clause in self.missing:
            log.warning("missing: %s", clause)
        return sings

    @property
    def models(self) -> Path:
        return self.folder / "Models" / self.name

    @property
    def metadata(self) -> Path:
        return self.folder / "Models" / f"{self.name}.json"

    def _lay_timbre(self) -> None:
        """Write the index or else the centres; the host reads one of them."""
        index, centres = self.model.with_name(INDEX), self.model.with_name(CENTRES)
        if index.is_file():
            export_index(index, self.config, self.models)
            if centres.is_file():
                log.info("%s is left out, because the host reads either an index or centres", centres)
        elif centres.is_file():
            export_centres(centres, self.config, self.models)
        else:
            self.missing.append(f"an index or cluster centres ({INDEX} or {CENTRES} in {self.model.parent})")

    def _find_diffusion(self) -> tuple[Path, Path] | None:
        """Return the newest diffusion model and its YAML, if both exist."""
        for folder in (self.model.parent, self.model.parent / "diffusion"):
            for checkpoint in diffusion_checkpoints(folder)[:1]:
                path = checkpoint.model.with_name("config.yaml")
                if path.is_file():
                    return checkpoint.model, path
                self.missing.append(f"the YAML of the diffusion model {checkpoint.model} ({path})")
                return None
        self.missing.append(f"a diffusion model (model_<step>.pt and config.yaml in {self.model.parent})")
        return None

    def _lay_vocoder(self, path: Path, kind: str) -> None:
        if not path.is_file():
            path = self.pretrain / path.parent.name / path.name
        if path.is_file():
            out = self.folder / "hifigan" / f"{vocoder_graph_name(path)}.onnx"
            export_vocoder(path, out, kind, self.precision, self.folder / FILE)
        else:
            fetch = "'python download_pretrain.py --vocoder' fetches it"
            self.missing.append(f"the vocoder, without which diffusion does not sing ({path}; {fetch})")

    def _lay_f0_networks(self) -> None:
        for key in GRAPHS:
            row = F0_PREDICTORS[key]
            out, made = self.folder / "F0Predictor" / row.graph, self.pretrain / row.graph
            if (self.pretrain / row.weight).is_file() or (row.weight_is_optional and not made.is_file()):
                export_f0(key, out, pretrain=self.pretrain, precision=self.precision)
            elif made.is_file():
                copy(made, out)
            else:
                fetch = f"'python download_pretrain.py --f0 {key}' fetches it"
                self.missing.append(f"the pitch network {row.graph} ({self.pretrain / row.weight}; {fetch})")

    def _lay_encoder(self, key: str, size: int, config: Path) -> bool:
        """Write the graph of a speech encoder; returns whether it exists."""
        try:
            key = encoder_key(key, size, config)
        except UserError as error:
            self.missing.append(f"the speech encoder: {error}")
            return False
        made, row = graph_file(key, self.pretrain), ENCODERS[SOURCE_KEYS.get(key, key)]
        if made is None:
            self.missing.append(f"the speech encoder: '{key}' has no graph, so the host cannot sing with this model")
            return False
        out = self.folder / "hubert" / made.name
        if any((self.pretrain / name).is_file() for name in (row.weight, *row.others)):
            export_encoder(key, out, pretrain=self.pretrain, precision=self.precision)
        elif made.is_file():
            copy(made, out)
        else:
            where = f"{self.pretrain / row.weight}; 'python download_pretrain.py --encoder {key}' fetches it"
            self.missing.append(f"the speech encoder '{key}', without which the host cannot sing ({where})")
            return False
        return True


def copy(source: Path, target: Path) -> None:
    """Copy a graph, whole or not at all. Raises UserError if ``target`` cannot be written."""
    with output_path(target) as temporary:
        shutil.copyfile(source, temporary)
    log.info("%s: copied from %s", target, source)
