"""The sidecar files of stage 3: whether each clip has all of them, made from this clip and with these settings."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from checkup.finding import Finding, counted, error, ok, warning
from checkup.project import Project, every_nth
from modules.audio.files import open_audio
from modules.audio.spectrogram import VocoderMel
from modules.console import UserError, progress
from modules.data.features import SHORTEST_CLIP, SIDECARS, ClipFiles
from modules.f0 import F0_PREDICTORS
from modules.untrusted.json_file import read_json
from preparation.features import default_predictor, make_recipes
from preparation.fingerprints import MISSING, Matches, Recipe, check
from preparation.resampling import CLIP_SUFFIX
from preparation.sidecar_format import SidecarFormat
from preparation.vocoder_mels import vocoder_mel

MOST_CHECKED = 5_000  # clips whose sidecar files are compared with their fingerprints
MOST_READ = 20  # clips whose sidecar files are read whole
ENDINGS = tuple(path.name.removeprefix("X") for path in ClipFiles(Path("X.wav")).beside)  # after a clip's stem
EDITED = ClipFiles(Path("X.wav")).edited_f0.name.removeprefix("X")


def check_features(project: Project) -> Iterator[Finding]:
    """Yield the state of the sidecar files. Needs PyTorch."""
    config = project.config
    if config is None or not project.clips or project.encoder_flaw:
        yield ok("no features to check yet")
        return
    there = {folder: set(os.listdir(folder)) for folder in {clip.parent for clip in project.clips}}
    if not any(name.endswith(ENDINGS) for found in there.values() for name in found):
        yield ok("no features yet", project.feature_making)
        return
    yield from _orphans(there)
    former = _former_recipes(project)
    mel = _mel_of(project, former)
    recipes, matches = _recipes(project, former, mel), SidecarFormat.of(config, mel).matches
    sampled = every_nth(project.clips, MOST_CHECKED)
    reasons = _reasons(sampled, config.data.sampling_rate, recipes, matches)
    if unsampled := set(project.clips).difference(sampled):
        missing = _without_files([clip for clip in project.clips if clip in unsampled], there, recipes)
        shown = every_nth(missing, MOST_CHECKED)
        if missing := [clip for clip in shown if not _is_unused(clip, config.data.sampling_rate)]:
            reasons[MISSING, f"one of {', '.join(recipes)}"] += missing
    making = project.feature_making_for_diffusion if mel else project.feature_making
    for (reason, kinds), clips in sorted(reasons.items()):
        yield error(f"{counted(clips, 'clip')} with features {reason} ({kinds})", making)
    if not reasons:
        yield from _read_some(project, recipes, matches, making)
        of = f"; {len(sampled)} were compared with their fingerprints" if unsampled else ""
        predictor = recipes["f0"]["f0_predictor"]
        yield ok(f"features of {len(project.clips)} clips: {config.model.speech_encoder}, F0 by {predictor}{of}")


def _recipes(project: Project, former: Mapping[str, Any], mel: VocoderMel | None) -> dict[str, Recipe]:
    """Return the recipes that the sidecar files should have, with the F0 predictor and precision of the former ones."""
    predictor = former.get("f0", {}).get("f0_predictor")
    if predictor not in F0_PREDICTORS:
        predictor = default_predictor()
    recipes = make_recipes(project.config, predictor, bool(former.get("units", {}).get("half")), mel)
    if project.broken_weights:  # their size says nothing
        for name in ("units", "f0"):
            recipes[name]["weight_bytes"] = former.get(name, {}).get("weight_bytes")
    return recipes


def _orphans(there: Mapping[Path, set[str]]) -> Iterator[Finding]:
    """Yield the sidecar files whose clip is gone, and F0 that was edited by hand and no longer fits."""
    alone, edited = [], []
    for folder, names in there.items():
        for name in sorted(names):
            ending = next((one for one in ENDINGS if name.endswith(one)), None)
            if ending is None or name.startswith("."):
                continue
            if name.removesuffix(ending) + CLIP_SUFFIX not in names:
                alone.append(folder / name)
            elif ending == EDITED:
                edited.append(folder / name)
    if alone:
        yield warning(f"{counted(alone, 'sidecar file')} of clips that are gone", "delete these files")
    if edited:
        what = f"{counted(edited, 'F0 file')} edited by hand, which no longer fits the clip"
        yield warning(what, "correct the clip's new F0 in its place, and delete these files")


def _without_files(clips: list[Path], there: Mapping[Path, set[str]], kinds: Iterable[str]) -> list[Path]:
    """Return the clips that lack a file of these kinds, by the names in their folders."""
    of_x = ClipFiles(Path("X" + CLIP_SUFFIX))
    endings = [path.name.removeprefix("X") for kind in kinds for path in of_x.paths(kind)]
    return [clip for clip in clips if any(clip.stem + ending not in there[clip.parent] for ending in endings)]


def _former_recipes(project: Project) -> dict[str, Any]:
    """Return the recipes of the first clip that has them; a clip of other recipes is then named."""
    for clip in every_nth(project.clips, MOST_CHECKED):
        try:
            content = read_json(ClipFiles(clip).fingerprint)
            return {name: content[name]["recipe"] for name in SIDECARS if name in content}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def _mel_of(project: Project, former: Mapping[str, Any]) -> VocoderMel | None:
    """Return the vocoder's spectrogram if some clips have mels and the vocoder is there, else None."""
    if "mel" not in former or project.diffusion is None:
        return None
    try:
        return vocoder_mel(project.config, project.diffusion)
    except UserError:
        return None


def _reasons(
    clips: list[Path], rate: int, recipes: dict[str, Recipe], matches: Matches
) -> dict[tuple[str, str], list[Path]]:
    """Return the clips to make anew by the reason and the kinds of files."""
    reasons = defaultdict(list)
    for clip in progress(clips, total=len(clips), description="comparing features", unit="clip", leave=False):
        try:
            stale = check(ClipFiles(clip), recipes, matches).stale
            if not stale or _is_unused(clip, rate):
                continue
        except OSError:  # the clip was deleted meanwhile
            continue
        by_reason = defaultdict(list)
        for name, reason in stale.items():
            by_reason[reason].append(name)
        for reason, names in by_reason.items():
            reasons[reason, ", ".join(names)].append(clip)
    return reasons


def _is_unused(clip: Path, rate: int) -> bool:
    """Return whether a clip cannot be read, is too short or of another rate, which the section about clips says."""
    try:
        with open_audio(clip) as sound:
            return sound.samplerate != rate or sound.frames / sound.samplerate < SHORTEST_CLIP
    except UserError:
        return True


def _read_some(project: Project, recipes: dict[str, Recipe], matches: Matches, making: str) -> Iterator[Finding]:
    """Yield which of some clips have files that cannot be read, are not finite or do not fit the clip."""
    bad = [
        ClipFiles(clip).paths(name)[0]
        for clip in every_nth(project.clips, MOST_READ)
        for name in recipes
        if not _is_unused(clip, project.sampling_rate) and not matches(ClipFiles(clip), name)
    ]
    if bad:
        what = f"{counted(bad, 'sidecar file')} that cannot be used, of {MOST_READ} clips that were read"
        yield error(what, f"delete them, then: {making}")
