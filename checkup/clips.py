"""Recordings and clips: whether each recording has its clip, and whether the clips can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from checkup.finding import Finding, counted, error, number_of, ok, warning
from checkup.project import RUN, Project, every_nth
from modules.atomic_file import obstacle
from modules.audio import ffmpeg
from modules.audio.files import open_audio
from modules.console import UserError, progress
from modules.data.features import SHORTEST_CLIP
from modules.temporary_file import find_unfinished
from preparation.clip_ledger import ClipLedger
from preparation.data_split import FEWEST_CLIPS, find_misplaced
from preparation.recordings import (
    DANGLING,
    MOST_NOTES,
    Recording,
    find_recordings,
    refuse_names,
    speakers_without_clips,
)
from preparation.resampling import CLIP_SUFFIX, SETTINGS, up_to_date

MOST_HEADERS = 20_000  # clips whose headers are read


def check_recordings(project: Project) -> Iterator[Finding]:
    """Yield the state of the folder of recordings."""
    recordings, notes = _find(project)
    yield from _passed_over(project, notes)
    if not recordings:
        if project.clips:
            yield ok(f"no recordings in {project.raw}; the clips stand alone")
        else:
            only_converts = any(RUN.glob("G_*.pth"))
            cure = f"put recordings into {project.raw}/<speaker>/, then: {project.resampling}"
            yield ok(f"no recordings yet in {project.raw}", "" if only_converts else cure)
        return
    speakers = Counter(recording.speaker for recording in recordings)
    yield ok(f"{number_of(recordings, 'recording')} of {number_of(speakers, 'speaker')} in {project.raw}")
    links = {entry.name for entry in project.raw.iterdir() if not entry.exists()}  # of which the notes speak
    for sentence in speakers_without_clips(project.raw, speakers.keys() | links):
        yield warning(sentence, "put recordings there, or delete it")
    _, refused = refuse_names(recordings, CLIP_SUFFIX)
    if refused:
        yield error(f"names that no clip can have: {'; '.join(list(refused.values())[:3])}", "rename them")
    in_need = [one.path for one in recordings if one.path.suffix.lower() in ffmpeg.SUFFIXES]
    if in_need and not project.has_ffmpeg:
        yield error(f"{counted(in_need, 'recording')} can only be read with ffmpeg", "install ffmpeg (ffmpeg.org)")


def _passed_over(project: Project, notes: list[str]) -> Iterator[Finding]:
    """Yield the first notes about files that are no recordings, and how many more there are."""
    for note in notes[:MOST_NOTES]:
        yield warning(note, "repair the link, or delete it" if note.endswith(DANGLING) else "")
    if more := notes[MOST_NOTES:]:
        yield warning(f"{number_of(more, 'other file')} in {project.raw} passed over")


def _find(project: Project) -> tuple[list[Recording], list[str]]:
    """Return the recordings and the notes of ``find_recordings``; nothing if there is no folder."""
    try:
        return find_recordings(project.raw)
    except UserError:
        return [], []


def find_sound(project: Project) -> dict[str, list[Path]]:
    """Return speaker -> recordings, or clips if there are no recordings."""
    speakers: dict[str, list[Path]] = {}
    for one in _find(project)[0]:
        speakers.setdefault(one.speaker, []).append(one.path)
    return speakers or {name: clips for name, clips in project.speakers.items() if clips}


def check_clips(project: Project) -> Iterator[Finding]:
    """Yield the state of the clips, and how they agree with the recordings that can be read."""
    recordings, _ = refuse_names(_find(project)[0], CLIP_SUFFIX)
    recordings = [one for one in recordings if project.has_ffmpeg or one.path.suffix.lower() not in ffmpeg.SUFFIXES]
    if why := obstacle(project.clips_folder):
        yield error(f"{project.clips_folder} cannot be made: {why}", "move it away, or repair the link")
        return
    if not project.clips:
        if recordings:
            what = f"no clips yet in {project.clips_folder}"
            is_lost = project.lists[0].exists()
            yield error(what, project.resampling) if is_lost else ok(what, project.resampling)
        else:
            yield ok(f"no clips yet in {project.clips_folder}")
        return
    targets = {one.path: project.clips_folder / one.speaker / (one.path.stem + CLIP_SUFFIX) for one in recordings}
    problems = [*_compare(project, targets), *_leftovers(project), *_check_headers(project)]
    few = [f"{name} {len(clips)}" for name, clips in project.speakers.items() if len(clips) < FEWEST_CLIPS]
    if few:
        cure = f"put more recordings into {project.raw}/<speaker>/, then: {project.resampling}"
        problems.append(error(f"too few clips, each speaker needs {FEWEST_CLIPS}: {', '.join(few)}", cure))
    if misplaced := find_misplaced(project.clips_folder):
        cure = f"move them to {project.raw}/<speaker>/, then: {project.resampling}"
        problems.append(warning(f"{counted(misplaced, 'sound file')} are no .wav in a speaker's folder", cure))
    yield from problems
    if not problems:
        checked = f"; the headers of {MOST_HEADERS} were read" if len(project.clips) > MOST_HEADERS else ""
        clips, speakers = number_of(project.clips, "clip"), number_of(project.speakers, "speaker")
        yield ok(f"{clips} of {speakers} in {project.clips_folder}{checked}")


def _compare(project: Project, targets: dict[Path, Path]) -> Iterator[Finding]:
    """Yield where the recordings (``targets``: each with its clip) and the clips differ."""
    clips = set(project.clips)
    if missing := [recording for recording, clip in targets.items() if clip not in clips]:
        yield error(
            f"{counted(missing, 'recording')} without a clip", f"{project.resampling}; delete those that it cannot use"
        )
    settings = project.clips_folder / SETTINGS
    changed = settings.stat().st_mtime_ns if settings.is_file() else 0
    stale = [one for one, clip in targets.items() if clip in clips and not up_to_date(one, clip, changed)]
    newer = [one for one in stale if max(one.stat().st_mtime_ns, changed) >= targets[one].stat().st_mtime_ns]
    if newer:
        yield error(f"{counted(newer, 'recording')} newer than the clip", project.resampling)
    if copied := [one for one in stale if one not in newer]:
        what = f"{counted(copied, 'recording')} copied or moved after the clip was made"
        yield warning(f"{what}; resample.py would make the clips again", f"{project.resampling}, if you replaced them")
    if not targets:
        return
    try:
        gone, _ = ClipLedger(project.raw, project.clips_folder).without_recording(set(targets.values()))
    except UserError as failure:
        yield error(str(failure), f"delete {project.clips_folder / '.resample_clips.jsonl'}")
        return
    if gone:
        cure = f"{project.pruning}, then: {project.splitting}"
        yield warning(f"{counted(gone, 'clip')} whose recording was deleted, and which are still used", cure)


def _leftovers(project: Project) -> Iterator[Finding]:
    folders = [project.clips_folder, *(project.clips_folder / name for name in project.speakers)]
    if left := [path for folder in folders for path in find_unfinished(folder)]:
        what = f"{counted(left, 'temporary file')} of a stage that was killed, or that runs now"
        yield warning(what, f"{project.resampling}, which deletes them")


def _check_headers(project: Project) -> Iterator[Finding]:
    """Yield which clips cannot be read, have another rate, or are too short."""
    sampled = every_nth(project.clips, MOST_HEADERS)
    unreadable, other_rate, too_short = [], {}, []
    for clip in progress(sampled, total=len(sampled), description="reading clips' headers", unit="clip", leave=False):
        try:
            with open_audio(clip) as sound:
                rate, length = sound.samplerate, sound.frames / sound.samplerate
        except UserError:
            unreadable.append(clip)
            continue
        if rate != project.sampling_rate:
            other_rate[clip] = rate
        elif length < SHORTEST_CLIP:
            too_short.append(clip)
    cure = f"delete them, then: {project.resampling}"
    if unreadable:
        yield error(f"{counted(unreadable, 'clip')} cannot be read as sound", cure)
    if other_rate:
        found = ", ".join(f"{rate} Hz" for rate in sorted(set(other_rate.values())))
        what = f"{counted(list(other_rate), 'clip')} have {found}, and the configuration {project.sampling_rate} Hz"
        yield error(what, f"delete them, then: {project.resampling_anew}")
    if too_short:
        yield warning(f"{counted(too_short, 'clip')} shorter than {SHORTEST_CLIP} s, which are not used")
