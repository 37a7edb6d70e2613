"""The settings of a live conversion, and what they stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inference.conversion import Conversion, check_ranges, within
from inference.model_files import find_generator

if TYPE_CHECKING:  # imported where it is used: the window opens before PyTorch is loaded
    from inference.svc import Svc
    from live.converter import StreamingConverter


@dataclass(frozen=True)
class Settings:
    """What a user chooses.

    Attributes:
        conversion: speaker (empty: the first of the model), shift, F0 predictor, level of silence and so on.
        model_path, config_path: generator and its config; empty for the newest, and the one beside it.
        source, sink: number, part of the name or label of the input and the output; empty for the system's.
        block: seconds of a block.
        fixed_delay: total delay in seconds; None for the shortest.
        device, precision: as of Svc.

    Raises UserError for a value out of range.
    """

    conversion: Conversion
    model_path: str = ""
    config_path: str = ""
    source: str = ""
    sink: str = ""
    block: float = within(0.25, 0.03, 5)
    fixed_delay: float | None = within(None, 0, 10)
    device: str | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def model(self) -> tuple:
        """What another model must be loaded for."""
        return self.model_path, self.config_path, self.device, self.precision

    @property
    def stream(self) -> tuple:
        """What the devices must be opened anew for."""
        return self.source, self.sink, self.block, self.fixed_delay

    def with_model(self, path: str) -> Settings:
        """Return the settings with another model; the config that was named stays with the model that it belongs to."""
        config = self.config_path if path == self.model_path else ""
        return replace(self, model_path=path, config_path=config)

    def speakers(self) -> list[str]:
        """Return the names of the model's speakers. Raises UserError if a file is missing or damaged."""
        from inference.voices import synthesizer_voices
        from modules.config import load_config

        _, config = find_generator(self.model_path, self.config_path)
        return list(synthesizer_voices(load_config(config), config).spk2id)

    def load_model(self) -> Svc:
        """Load the model. Raises UserError as ``Svc``."""
        from inference.svc import Svc

        generator = find_generator(self.model_path, self.config_path)
        return Svc(*generator, self.device, precision=self.precision)

    def conversion_of(self, svc: Svc) -> Conversion:
        """Return the conversion, with the model's first speaker if none is chosen."""
        return self.conversion if self.conversion.spk else replace(self.conversion, spk=next(iter(svc.spk2id)))

    def build_converter(self, svc: Svc) -> StreamingConverter:
        """Build a converter for a loaded model. Raises UserError as ``StreamingConverter``."""
        from live.converter import StreamingConverter

        return StreamingConverter(svc, self.conversion_of(svc), self.block)
