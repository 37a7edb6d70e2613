"""The sound card, through the package sounddevice (PortAudio)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from modules.console import UserError, option

REQUIREMENTS = "requirements-realtime.txt"


@dataclass(frozen=True)
class Device:
    """A sound device: its number and name, its channels, and its usual rate in Hz."""

    number: int
    name: str
    inputs: int
    outputs: int
    rate: int

    @property
    def label(self) -> str:
        """Number and name, as a list shows them; see ``find_device``."""
        return f"{self.number} {self.name}"

    def describe(self) -> str:
        """Describe the device in one line."""
        return f"{self.number:3d}  {self.name}  ({self.inputs} in, {self.outputs} out, {self.rate} Hz)"


def load_sounddevice() -> Any:
    """Import sounddevice. Raises UserError with the cure if it or PortAudio is missing."""
    try:
        import sounddevice
    except ImportError:
        raise UserError(f"live sound needs the package sounddevice: pip install -r {REQUIREMENTS}") from None
    except OSError:
        raise UserError(
            "live sound needs the library PortAudio, which is missing: on Debian and Ubuntu 'apt install "
            "libportaudio2', on Fedora 'dnf install portaudio'"
        ) from None
    return sounddevice


def list_devices() -> list[Device]:
    """Return all devices. Raises UserError as ``load_sounddevice``."""
    found = load_sounddevice().query_devices()
    hosts = [host["name"] for host in load_sounddevice().query_hostapis()]
    return [
        Device(
            number,
            f"{one['name']}, {hosts[one['hostapi']]}",
            one["max_input_channels"],
            one["max_output_channels"],
            round(one["default_samplerate"]),
        )
        for number, one in enumerate(found)
    ]


def find_device(name: str | int | None, direction: str) -> Device:
    """Return the device of a number, a part of a name or a label, None for the system's; ``direction`` is input or
    output.

    A label finds the device of its name even if the number has changed; its number tells devices of one name apart.
    Raises UserError if there is none with channels in this direction, or several.
    """
    suitable = [one for one in list_devices() if getattr(one, f"{direction}s")]
    if not suitable:
        raise UserError(f"this computer has no sound {direction}; connect one, or convert a file with {option('file')}")
    if name in (None, ""):
        usual = load_sounddevice().default.device[direction == "output"]
        return next((one for one in suitable if one.number == usual), suitable[0])
    matches = _matches(suitable, str(name))
    if len(matches) != 1:
        what = "no" if not matches else "more than one"
        raise UserError(
            f"there is {what} {direction} '{name}'; {option('list_devices')} prints the numbers: "
            + "; ".join(one.label for one in suitable)
        )
    return matches[0]


def _matches(devices: list[Device], text: str) -> list[Device]:
    """Return the devices of a number; or of a label, a name, a label's name or a part of a name, the first of these
    that finds any."""
    if text.isdecimal():
        return [one for one in devices if one.number == int(text)]
    number, _, name = text.partition(" ")
    names = (text, name) if number.isdecimal() else (text,)
    return (
        [one for one in devices if one.label == text]
        or [one for one in devices if one.name in names]
        or [one for one in devices if text.lower() in one.name.lower()]
    )


def refresh_devices() -> None:
    """Look for devices again: PortAudio lists them only once. No stream may be open.

    Raises UserError as ``load_sounddevice``.
    """
    sounddevice = load_sounddevice()
    sounddevice._terminate()
    sounddevice._initialize()


class SoundCard:
    """An input and an output, opened as one stream, so that both have one clock.

    Args:
        source, sink: number, part of the name or label of the input and the output; None for the system's.
    """

    def __init__(self, source: str | int | None = None, sink: str | int | None = None):
        self.source, self.sink = source, sink

    def refresh(self) -> None:
        """Look for devices again, as ``refresh_devices``."""
        refresh_devices()

    def open(
        self,
        rate: int,
        buffer_seconds: float,
        exchange: Callable[[np.ndarray], np.ndarray],
        on_end: Callable[[], None],
    ) -> Stream:
        """Open the stream at ``rate`` Hz, or at the devices' own rate if they refuse it.

        ``exchange`` maps a buffer of input (n, channels) to output (n,); ``on_end`` is called when the stream ends by
        itself. Raises UserError if the devices cannot be opened together.

        A number means a device at the first opening; the next one finds the same device, whatever its number is then.
        """
        source, sink = find_device(self.source, "input"), find_device(self.sink, "output")
        stream = Stream(source, sink, rate, buffer_seconds, exchange, on_end)
        if str(self.source).isdecimal():
            self.source = source.label
        if str(self.sink).isdecimal():
            self.sink = sink.label
        return stream


class Stream:
    """An open stream. Attributes: ``rate`` in Hz, ``buffer`` in samples, and ``delay``, the seconds that the driver
    reports for input and output together."""

    def __init__(
        self,
        source: Device,
        sink: Device,
        rate: int,
        buffer_seconds: float,
        exchange: Callable[[np.ndarray], np.ndarray],
        on_end: Callable[[], None],
    ):
        sounddevice = load_sounddevice()

        def callback(captured: np.ndarray, played: np.ndarray, *_: object) -> None:
            played[:] = exchange(captured)[:, None]

        failure = ""
        # The rate of the model needs no resampling; one channel of input is the first, where a microphone is.
        for self.rate in dict.fromkeys((rate, sink.rate, source.rate, 48000, 44100)):
            for inputs in dict.fromkeys((1, source.inputs)):
                self.buffer = round(buffer_seconds * self.rate)
                try:
                    self._stream = sounddevice.Stream(
                        device=(source.number, sink.number),
                        samplerate=self.rate,
                        blocksize=self.buffer,
                        channels=(inputs, min(2, sink.outputs)),
                        dtype="float32",
                        latency="low",
                        callback=callback,
                        finished_callback=on_end,
                    )
                except (sounddevice.PortAudioError, ValueError) as error:
                    failure = str(error)
                    continue
                self.delay = float(sum(self._stream.latency))
                return
        raise UserError(
            f"'{source.name}' and '{sink.name}' cannot be opened together ({failure}); choose an input and an output "
            "of one kind (same driver, same rate), and end other programs that use them"
        )

    def start(self) -> None:
        """Let the device call ``exchange`` from now on."""
        self._stream.start()

    def close(self) -> None:
        """Stop and free the devices."""
        self._stream.close(ignore_errors=True)
