"""Processor time and memory of the feature engine on more and more recordings, in batches of about 65,000 frames.

    OPENBLAS_NUM_THREADS=1 python benchmarks/feature_speed.py 2038 8151 32604

Every batch is made anew from random numbers, as long as the study's recordings, so that nothing is in any cache.
"""

import resource

import numpy as np
from measuring import header, parser, row, timed

from bfrbctl.arrays.ragged import offsets_of
from bfrbctl.features import FeatureConfig, compute
from bfrbctl.recordings.dataset import RecordingBatch
from bfrbctl.schema import HELIOS_LAYOUT

FRAMES_A_BATCH = 65536
MEAN_FRAMES = 70


def random_batch(n_sequences: int, seed: int) -> RecordingBatch:
    """Make complete recordings of random numbers: 29 to 700 frames, 60 % of the ToF pixels without a return."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.gamma(4.0, 16.0, n_sequences).astype(np.int64) + 6, 29, 700)
    n_frames = int(lengths.sum())
    rot = rng.normal(size=(n_frames, 4)).astype(np.float32)
    return RecordingBatch(
        sequence_ids=tuple(f"SEQ_{i:06d}" for i in range(n_sequences)),
        subjects=("SUBJ_000000",) * n_sequences,
        offsets=offsets_of(lengths),
        acc=rng.normal(size=(n_frames, 3)).astype(np.float32),
        rot=rot / np.linalg.norm(rot, axis=1, keepdims=True),
        thm=rng.normal(28.0, 1.0, size=(n_frames, 5)).astype(np.float32),
        tof=np.maximum(rng.integers(-375, 250, size=(n_frames, 5, 64), dtype=np.int16), -1),
        demographics=np.ones((n_sequences, 7), dtype=np.float32),
        layout=HELIOS_LAYOUT,
        rate_hz=10.0,
    )


def measure(n_sequences: int) -> str:
    """Compute the features of so many recordings and tell what it cost, as a line of a table."""
    a_batch = FRAMES_A_BATCH // MEAN_FRAMES
    seconds, n_frames = 0.0, 0
    for start in range(0, n_sequences, a_batch):
        batch = random_batch(min(a_batch, n_sequences - start), start)
        _, _, processor = timed(compute, batch, FeatureConfig())
        seconds += processor
        n_frames += batch.n_frames
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figures = (f"{seconds:.1f}", f"{1e6 * seconds / n_frames:.1f}", f"{peak:.2f}")
    return row(f"{n_sequences:,}", f"{n_frames:,}", *figures)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("recordings", type=int, nargs="*", default=[2038, 8151], help="numbers of recordings")
    chosen = arguments.parse_args()
    print(header("recordings", "frames", "processor s", "us a frame", "peak memory GiB"))
    for n_sequences in chosen.recordings:
        print(measure(n_sequences), flush=True)


if __name__ == "__main__":
    main()
