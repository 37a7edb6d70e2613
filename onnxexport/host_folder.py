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
from typing import Any

from diffusion.saved_models import diffusion_checkpoints
from modules.atomic_file import output_path, reason
from modules.config import load_config, load_diffusion_config
from modules.console import UserError, get_logger
from modules.f0 import F0_PREDICTORS
from onnxexport.diffusion import export_diffusion, graph_paths
from onnxexport.encoders import SOURCE_KEYS, export_encoder
from onnxexport.f0 import GRAPHS, export_f0
from onnxexport.mel import FILE
from onnxexport.metadata import CENTRES as TABLE
from onnxexport.metadata import diffusion_json, encoder_flaw, index_files
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
        optional: what is not there, and the host can do without.
        missing: why the host cannot use the model.
    """

    folder: Path
    name: str
    model: Path
    config: Path
    pretrain: Path
    precision: str = "fp32"
    optional: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def lay(self) -> bool:
        """Write all files whose sources exist, each whole or not at all, and log what is missing.

        Deletes what an earlier export of the model wrote and this one has no source for. Returns whether the host can
        sing with the files: whether every encoder is there, and the model takes the host's noise. Raises UserError if a
        source is damaged or does not fit the others, or a file cannot be written or deleted.
        """
        config = load_config(self.config)
        encoders = {(config.model.speech_encoder, config.model.ssl_dim): self.config}
        files, keys = self._lay_timbre()
        flaws, prefix = [], self.models / self.name
        vocoder, kind = self.pretrain / VOCODER, "nsf-hifigan"
        if found := self._find_diffusion():
            model, path = found
            settings = load_diffusion_config(path)
            encoders.setdefault((settings.data.encoder, settings.data.encoder_out_channels), path)
            vocoder, kind = Path(settings.vocoder.ckpt), settings.vocoder.type
            metadata = diffusion_json(self.metadata)
            flaws += export_diffusion(model, path, prefix, metadata, list(config.spk), self.precision)
            files += [metadata, *graph_paths(prefix).values()]
            keys["ShallowDiffusion"] = metadata.stem
        out = self.models / f"{self.name}_SoVits.onnx"
        flaws += export_synthesizer(self.model, self.config, out, self.metadata, self.name, self.precision, keys)
        self._delete_all_but(files)
        self.missing += dict.fromkeys(flaws)  # the encoder may be that of both
        self._lay_vocoder(vocoder, kind)
        self._lay_f0_networks()
        for encoder, path in encoders.items():
            self._lay_encoder(*encoder, path)
        for clause in self.optional:
            log.info("optional: %s", clause)
        for clause in self.missing:
            log.warning("%s", clause)
        return not self.missing

    @property
    def models(self) -> Path:
        return self.folder / "Models" / self.name

    @property
    def metadata(self) -> Path:
        return self.folder / "Models" / f"{self.name}.json"

    def _lay_timbre(self) -> tuple[list[Path], dict[str, Any]]:
        """Write the index or else the centres; the host reads one of them. Returns as ``export_index``."""
        index, centres = self.model.with_name(INDEX), self.model.with_name(CENTRES)
        if index.is_file():
            if centres.is_file():
                log.info("%s is left out, because the host reads either an index or centres", centres)
            return export_index(index, self.config, self.models)
        if centres.is_file():
            return export_centres(centres, self.config, self.models)
        self.optional.append(f"no index or cluster centres ({INDEX} or {CENTRES} in {self.model.parent})")
        return [], {"Cluster": ""}

    def _find_diffusion(self) -> tuple[Path, Path] | None:
        """Return the newest diffusion model and its YAML, if both exist."""
        folders = self.model.parent, self.model.parent / "diffusion"
        for folder in folders:
            for checkpoint in diffusion_checkpoints(folder)[:1]:
                path = checkpoint.model.with_name("config.yaml")
                if path.is_file():
                    return checkpoint.model, path
                self.optional.append(f"no {path}, which the diffusion model {checkpoint.model.name} needs")
                return None
        where = " or ".join(map(str, folders))
        self.optional.append(f"no diffusion model (model_<step>.pt and config.yaml in {where})")
        return None

    def _delete_all_but(self, files: list[Path]) -> None:
        """Delete the indexes, centres and diffusion model of an earlier export, except ``files``."""
        graphs = list(graph_paths(self.models / self.name).values())
        found = [*index_files(self.models), self.models / TABLE, *graphs]
        if any(path.is_file() for path in graphs):  # otherwise the JSON may be that of another model
            found.append(diffusion_json(self.metadata))
        for path in sorted(set(found).difference(files)):
            if path.is_file():
                try:
                    path.unlink()
                except OSError as error:
                    raise UserError(f"{path} of an earlier export cannot be deleted: {reason(error)}") from None
                log.warning("deleted %s: an earlier export wrote it, and it does not belong to this one", path)

    def _lay_vocoder(self, path: Path, kind: str) -> None:
        if not path.is_file():
            path = self.pretrain / path.parent.name / path.name
        if path.is_file():
            out = self.folder / "hifigan" / f"{vocoder_graph_name(path)}.onnx"
            export_vocoder(path, out, kind, self.precision, self.folder / FILE)
        else:
            fetch = "'python download_pretrain.py --vocoder' fetches it"
            self.optional.append(f"no vocoder, without which diffusion gives no sound ({path}; {fetch})")

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
                self.optional.append(f"no pitch network {row.graph} ({self.pretrain / row.weight}; {fetch})")

    def _lay_encoder(self, key: str, size: int, config: Path) -> None:
        if encoder_flaw(key, size, config):  # in ``missing`` already
            return
        key = encoder_key(key, size, config)
        made, row = graph_file(key, self.pretrain), ENCODERS[SOURCE_KEYS.get(key, key)]
        out = self.folder / "hubert" / made.name
        if any((self.pretrain / name).is_file() for name in (row.weight, *row.others)):
            export_encoder(key, out, pretrain=self.pretrain, precision=self.precision)
        elif made.is_file():
            copy(made, out)
        else:
            where = f"{self.pretrain / row.weight}; 'python download_pretrain.py --encoder {key}' fetches it"
            self.missing.append(f"missing: the speech encoder '{key}', without which the host cannot convert ({where})")


def copy(source: Path, target: Path) -> None:
    """Copy a graph, whole or not at all. Raises UserError if ``target`` cannot be written."""
    with output_path(target) as temporary:
        shutil.copyfile(source, temporary)
    log.info("%s: copied from %s", target, source)
