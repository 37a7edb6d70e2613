"""Your map of speaker mixes, which ``python inference_main.py -usm`` follows: who is heard when, and how much.

For each speaker id of the model there is a track, a list of segments

    [start, end, weight at the start, weight at the end]

Times are shares of the song: 0 is its beginning, 1 its end. The first segment starts at 0, each further one where the
one before ends, and the last ends at 1. Weights are 0 or more and change evenly from the one to the other; only their
proportion counts. A speaker who is never heard has the track [[0, 1, 0, 0]].
"""

# From the voice of speaker 0 to that of speaker 1, which is reached at three quarters of the song.
spk_mix_map = {
    0: [[0.0, 0.75, 1.0, 0.0], [0.75, 1.0, 0.0, 0.0]],
    1: [[0.0, 0.75, 0.0, 1.0], [0.75, 1.0, 1.0, 1.0]],
}
