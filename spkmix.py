"""The map of speaker mixes that ``python inference_main.py -usm`` uses; edit it for your song.

Each speaker id of the model has a track, a list of segments

    [start, end, weight at the start, weight at the end]

Times are shares of the song: 0 is its beginning, 1 its end. The first segment starts at 0, each next one at the end
of the one before, and the last ends at 1. Weights are 0 or more and change linearly within a segment; only their ratio
counts. A silent speaker has the track [[0, 1, 0, 0]].
"""

# Changes from speaker 0 to speaker 1 over the first three quarters of the song.
spk_mix_map = {
    0: [[0.0, 0.75, 1.0, 0.0], [0.75, 1.0, 0.0, 0.0]],
    1: [[0.0, 0.75, 0.0, 1.0], [0.75, 1.0, 1.0, 1.0]],
}
