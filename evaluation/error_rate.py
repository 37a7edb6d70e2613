"""Error rates of a recogniser's text: of characters and of phones."""

from __future__ import annotations

WORST = 1.0  # of a sound; a recogniser that repeats a word in a loop would give several


def character_error_rate(text: str, wanted: str | None) -> float | None:
    """Return insertions, deletions and substitutions of characters over the wanted ones, at most 1.

    Both texts are normalized (``evaluation.words.normalize``). None if no text is wanted.
    """
    import jiwer

    return min(WORST, float(jiwer.cer(wanted, text))) if wanted else None


def phone_error_rate(phones: str, wanted: str | None) -> float | None:
    """Return insertions, deletions and substitutions of phones over the wanted ones, at most 1.

    Phones are separated by spaces. None if no phone is wanted.
    """
    import jiwer

    return min(WORST, float(jiwer.wer(wanted, phones))) if wanted else None
