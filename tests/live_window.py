"""Opens the window under the DISPLAY of the environment and drives it by keyboard; test_live_window.py runs it.

python -m tests.live_window FOLDER     FOLDER has G_0.pth and config.json; pictures are written there
"""

from __future__ import annotations

import sys
import threading
import time
import tkinter
import types
from pathlib import Path

import numpy as np
from PIL import ImageGrab

from inference.conversion import Conversion
from live.controller import Controller
from live.settings import Settings
from live.window import Window


class FakeStream:
    """A sound card that hears a tone, and calls from a thread of its own as a real one does."""

    rate, buffer, delay = 44100, 441, 0.012

    def __init__(self, exchange):
        self.exchange, self.open = exchange, True

    def start(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        t = np.arange(441) / 44100
        while self.open:
            self.exchange((0.1 * np.sin(2 * np.pi * 200 * t)).astype(np.float32)[:, None])
            time.sleep(0.01)

    def close(self):
        self.open = False
        self.thread.join()


class FakeCard:
    def refresh(self):
        pass

    def open(self, rate, buffer_seconds, exchange, on_end):
        return FakeStream(exchange)


def fake_sounddevice():
    """A module with a microphone; another one, before it in the list, is found only when PortAudio begins anew."""

    def device(name, inputs, outputs):
        return {
            "name": name,
            "hostapi": 0,
            "max_input_channels": inputs,
            "max_output_channels": outputs,
            "default_samplerate": 44100.0,
        }

    module = types.ModuleType("sounddevice")
    found = [device("built-in", 1, 2)]
    module.query_devices = lambda: found
    module.query_hostapis = lambda: [{"name": "ALSA"}]
    module._terminate = found.clear
    module._initialize = lambda: found.extend([device("USB", 1, 0), device("built-in", 1, 2)])
    return module


class Driver:
    """Sends keys to the window and looks at it, step by step, from Tk's own thread."""

    def __init__(self, folder: Path):
        self.folder, self.root = folder, tkinter.Tk()
        self.root.geometry("+0+0")
        self.controller = Controller(lambda settings: FakeCard())
        missing = str(folder / "missing.pth"), str(folder / "missing.json")
        settings = Settings(Conversion("", f0_predictor="pm"), *missing, "0", block=0.1)
        self.window = Window(self.root, settings, self.controller)

    def pump(self, until, seconds=60.0):
        """Let Tk work until the condition holds. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.window.note['text']!r}, {self.window.state['text']!r}")
            self.root.update()
            time.sleep(0.01)
        self.root.update()

    def key(self, name):
        self.root.focus_get().event_generate(f"<{name}>")
        self.root.update()

    def shoot(self, name):
        for _ in range(20):
            self.root.update()
        ImageGrab.grab(bbox=(0, 0, self.root.winfo_width(), self.root.winfo_height())).save(self.folder / name)

    def run(self):
        window, note = self.window, lambda: self.window.note["text"]
        self.root.update()
        window.widgets["model_path"].focus_force()
        self.root.update()
        self.key("Return")  # the model is missing
        self.pump(lambda: "there is no checkpoint" in note())
        assert "Model takes the path" in note(), note()
        self.shoot("error.png")
        window.values["model_path"].set(str(self.folder / "G_0.pth"))
        window.widgets["model_path"].focus_force()
        self.root.update()
        self.key("Tab")
        order = [str(self.root.focus_get())]
        window._list_speakers()
        assert window.values["spk"].get() == "alto", window.values["spk"].get()
        self.key("Return")
        window.widgets["tran"].focus_force()
        self.root.update()
        self.key("Up")  # while the model is loaded
        assert self.controller.is_active and not self.controller.is_running
        self.pump(lambda: "median" in window.state["text"] and window.level["value"] > 30)
        self.pump(lambda: self.controller._converter._settings[0].tran == 1)
        self.shoot("running.png")
        assert window.read().config_path == ""  # which belongs to the missing model
        assert note() == "" and "delay" in window.state["text"], (note(), window.state["text"])
        window.widgets["tran"].focus_force()
        self.root.update()
        self.key("Up")  # a semitone higher, applied at once
        assert window.values["tran"].get() == "2", window.values["tran"].get()
        self.pump(lambda: self.controller._converter._settings[0].tran == 2)
        window.values["tran"].set("much")
        self.key("Return")
        self.pump(lambda: note() == "Key is 'much'; it must be a number")
        window.values["tran"].set("100")
        self.key("Return")
        self.pump(lambda: note() == "Key is 100.0; it must be from -60 to 60")
        window.values["tran"].set("1")
        window.values["slice_db"].set("nan")
        self.key("Return")
        self.pump(lambda: note() == "Silence is nan; it must be from -120 to -1")
        window.values["slice_db"].set("-50")
        window.values["block"].set("0.001")
        self.key("Return")
        self.pump(lambda: note() == "Block is 0.001; it must be from 0.03 to 5")
        assert self.controller.is_running
        source = window.widgets["source"]
        assert source.get() == "0 built-in, ALSA"  # in place of its number
        self.root.tk.call("ttk::combobox::Post", source)
        assert source["values"] == ("system default", "0 built-in, ALSA")  # a stream is open
        self.root.tk.call("ttk::combobox::Unpost", source)
        self.key("Escape")
        self.pump(lambda: not self.controller.is_running and self.controller.is_idle)
        self.root.tk.call("ttk::combobox::Post", source)
        assert source["values"] == ("system default", "0 USB, ALSA", "1 built-in, ALSA"), source["values"]
        self.root.tk.call("ttk::combobox::Unpost", source)
        assert order[0] != str(window.widgets["model_path"])
        self.controller.close()
        self.root.destroy()


if __name__ == "__main__":
    sys.modules["sounddevice"] = fake_sounddevice()
    Driver(Path(sys.argv[1])).run()
    print("the window works")
