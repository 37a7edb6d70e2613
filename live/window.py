"""The window of the live voice changer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from live.controller import Controller
from live.settings import Settings
from modules.console import UserError, name_setting, option
from modules.f0 import F0_PREDICTORS

if TYPE_CHECKING:
    import tkinter

    from live.engine import Status

REFRESH = 100  # milliseconds
BLOCKS = ("0.1", "0.15", "0.25", "0.5", "1.0")  # seconds
QUIETEST = -60.0  # dB; the left end of the level meter
WIDTH = 580  # pixels of a message before it wraps
SYSTEM = "system default"
READY = "Choose a model, then press Start. Use headphones."


def open_window(settings: Settings) -> int:
    """Show the window until it is closed; returns the exit code. Raises UserError without Tk or a screen."""
    try:
        import tkinter
    except ImportError:
        raise UserError(
            "the window needs Tk, which this Python lacks: on Debian and Ubuntu 'apt install python3-tk', on Fedora "
            "'dnf install python3-tkinter', on macOS 'brew install python-tk'"
        ) from None
    try:
        root = tkinter.Tk()
    except tkinter.TclError as error:
        raise UserError(f"the window cannot open: {error}; start it on a computer with a screen") from None
    controller = Controller()
    Window(root, settings, controller)
    root.mainloop()
    controller.close()
    return 0


class Window:
    """Widgets for the settings, Start and Stop, and the state of the conversion.

    Return starts the conversion or applies the settings, Escape stops it, and Tab moves between the widgets. A setting
    that is changed while the conversion runs is applied at once.
    """

    def __init__(self, root: tkinter.Tk, settings: Settings, controller: Controller):
        from tkinter import ttk

        self.root, self.settings, self.controller = root, settings, controller
        self.message = ""  # a wrong value in a widget
        root.title("so-vits-svc live")
        self.frame = ttk.Frame(root, padding=12)
        self.frame.grid(sticky="nsew")
        self.frame.columnconfigure(1, weight=1)
        root.columnconfigure(0, weight=1)
        self.values: dict[str, tkinter.StringVar] = {}
        self.widgets: dict[str, ttk.Widget] = {}
        self._add_settings()
        self._add_state()
        root.bind("<Return>", lambda event: self.start())
        root.bind("<Escape>", lambda event: self.stop())
        root.protocol("WM_DELETE_WINDOW", root.destroy)
        self.widgets["model_path"].focus_set()
        self.widgets["model_path"].xview("end")
        self._list_devices()
        self._list_speakers()
        self.refresh()

    def _add_settings(self) -> None:
        from tkinter import ttk

        of, conversion = self.settings, self.settings.conversion
        self._add("source", "Input", ttk.Combobox, of.source or SYSTEM, postcommand=self._refresh_devices)
        self._add("sink", "Output", ttk.Combobox, of.sink or SYSTEM, postcommand=self._refresh_devices)
        model = self._add("model_path", "Model", ttk.Entry, of.model_path)
        model.bind("<FocusOut>", lambda event: self._list_speakers())
        ttk.Button(self.frame, text="Browse", command=self._browse).grid(row=2, column=2, padx=(6, 0))
        self._add("spk", "Speaker", ttk.Combobox, str(conversion.spk))
        self._add("tran", "Key (semitones)", ttk.Spinbox, f"{conversion.tran:g}", from_=-36, to=36)
        self._add("f0_predictor", "F0 predictor", ttk.Combobox, conversion.f0_predictor, values=list(F0_PREDICTORS))
        self._add("slice_db", "Silence (dB)", ttk.Spinbox, f"{conversion.slice_db:g}", from_=-120, to=-1)
        self._add("block", "Block (seconds)", ttk.Combobox, f"{of.block:g}", values=BLOCKS)
        delay = "" if of.fixed_delay is None else f"{of.fixed_delay:g}"
        self._add("fixed_delay", "Fixed delay (seconds)", ttk.Entry, delay)

    def _add(self, name: str, label: str, kind: type, value: str, **options: object) -> tkinter.Widget:
        """Add a row with a label and a widget for the setting ``name``; a change is applied to a running conversion.

        Messages name the setting by its label, without the unit in brackets.
        """
        import tkinter
        from tkinter import ttk

        row = len(self.widgets)
        name_setting(name, label.partition(" (")[0])
        ttk.Label(self.frame, text=label).grid(row=row, column=0, sticky="w", padx=(0, 12), pady=2)
        self.values[name] = tkinter.StringVar(self.root, value)
        widget = kind(self.frame, textvariable=self.values[name], width=34, **options)
        widget.grid(row=row, column=1, sticky="ew", pady=2)
        for event in ("<<ComboboxSelected>>", "<<Increment>>", "<<Decrement>>"):
            widget.bind(event, lambda event: self.root.after_idle(self.apply))
        self.widgets[name] = widget
        return widget

    def _add_state(self) -> None:
        from tkinter import ttk

        row = len(self.widgets)
        buttons = ttk.Frame(self.frame)
        buttons.grid(row=row, column=0, columnspan=3, sticky="ew", pady=(10, 6))
        self.start_button = ttk.Button(buttons, text="Start", command=self.start)
        self.stop_button = ttk.Button(buttons, text="Stop", command=self.stop)
        self.start_button.grid(row=0, column=0)
        self.stop_button.grid(row=0, column=1, padx=6)
        self.level = ttk.Progressbar(self.frame, maximum=-QUIETEST)
        self.level.grid(row=row + 1, column=0, columnspan=3, sticky="ew")
        self.state = ttk.Label(self.frame, font="TkFixedFont", justify="left")
        self.state.grid(row=row + 2, column=0, columnspan=3, sticky="w", pady=6)
        self.note = ttk.Label(self.frame, text=READY, wraplength=WIDTH, justify="left")
        self.note.grid(row=row + 3, column=0, columnspan=3, sticky="w")

    # -- what the user does -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the conversion, or apply the settings to the running one."""
        settings = self.read()
        if settings is not None:
            self.controller.apply(settings)

    def apply(self) -> None:
        """Apply the settings if the conversion runs or starts."""
        if self.controller.is_active:
            self.start()

    def stop(self) -> None:
        """Stop the conversion."""
        self.controller.stop()

    def _browse(self) -> None:
        from tkinter import filedialog

        path = filedialog.askopenfilename(parent=self.root, filetypes=[("generator", "G_*.pth *.pth"), ("all", "*")])
        if path:
            self.values["model_path"].set(path)
            self.widgets["model_path"].xview("end")
            self._list_speakers()
            self.apply()

    def read(self) -> Settings | None:
        """Return the settings in the widgets; None, with a sentence in the window, if one is wrong."""
        self.message = ""
        try:
            text = {name: value.get().strip() for name, value in self.values.items()}
            conversion = replace(
                self.settings.conversion,
                spk=text["spk"],
                tran=self._number("tran"),
                f0_predictor=text["f0_predictor"],
                slice_db=self._number("slice_db"),
            )
            return replace(
                self.settings.with_model(text["model_path"]),
                conversion=conversion,
                source=_device(text["source"]),
                sink=_device(text["sink"]),
                block=self._number("block"),
                fixed_delay=self._number("fixed_delay") if text["fixed_delay"] else None,
            )
        except UserError as error:
            self.message = str(error)
            return None

    def _number(self, name: str) -> float:
        text = self.values[name].get().strip()
        try:
            return float(text.replace(",", "."))
        except ValueError:
            raise UserError(f"{option(name)} is '{text}'; it must be a number") from None

    # -- what the window shows ----------------------------------------------------------------------------------------

    def _list_devices(self) -> None:
        from live.sound_card import list_devices

        try:
            devices = list_devices()
        except UserError as error:
            self.message = str(error)
            return
        for name, direction in (("source", "inputs"), ("sink", "outputs")):
            suitable = [one for one in devices if getattr(one, direction)]
            self.widgets[name]["values"] = [SYSTEM] + [one.label for one in suitable]
            for one in suitable:  # a number may mean another device later
                if self.values[name].get() == str(one.number):
                    self.values[name].set(one.label)

    def _refresh_devices(self) -> None:
        """Offer the devices that are there now, unless a stream is open or about to open, which must not lose them."""
        from live.sound_card import refresh_devices

        if self.controller.is_running or not self.controller.is_idle:
            return
        try:
            refresh_devices()
        except UserError as error:
            self.message = str(error)
        else:
            self._list_devices()

    def _list_speakers(self) -> None:
        """Offer the speakers of the model; the first, if the chosen one is not among them."""
        try:
            speakers = self.settings.with_model(self.values["model_path"].get().strip()).speakers()
        except UserError:
            return  # Start names what is missing
        self.widgets["spk"]["values"] = speakers
        if self.values["spk"].get() not in speakers:
            self.values["spk"].set(speakers[0])

    def refresh(self) -> None:
        """Show the present state, and again after REFRESH ms."""
        status, running = self.controller.status(), self.controller.is_running
        self.start_button["text"] = "Apply" if running else "Start"
        self.stop_button.state(["!disabled" if running else "disabled"])
        self.level["value"] = decibels(status.level if running else 0.0) - QUIETEST
        self.state["text"] = describe(status) if running else ""
        trouble = self.message or self.controller.error or (status.error or status.notice if status else "")
        busy = f"{self.controller.busy} ..." if self.controller.busy else ""
        self.note["text"] = trouble or busy or ("" if running else READY)
        self.note["foreground"] = "#b00020" if trouble else ""
        self.root.after(REFRESH, self.refresh)


def describe(status: Status) -> str:
    """Describe delays and losses in a few lines."""
    if status.delays is None:
        return "waiting for the sound device"
    parts = ", ".join(f"{name} {1000 * seconds:.0f}" for name, seconds in status.delays.rows()[:-1])
    return (
        f"delay {1000 * status.delays.total:.0f} ms ({parts})\n"
        f"computing a block: median {1000 * status.usual:.0f} ms, 99 % within {1000 * status.longest:.0f} ms\n"
        f"gaps {status.underruns}, dropped blocks {status.overruns}"
    )


def decibels(level: float) -> float:
    """Return an RMS level in dB, at least QUIETEST."""
    return max(QUIETEST, 20 * math.log10(max(level, 1e-9)))


def _device(text: str) -> str:
    """Return the entry of the list, or the text that the user wrote; empty for the system's device."""
    return "" if text == SYSTEM else text
