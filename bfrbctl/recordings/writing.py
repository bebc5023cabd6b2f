"""The frames files of one raw file: streamed by this process, or made of its parts by workers.

One process streams a file that is sorted by sequence. Workers read its parts on their own, one for each frames file,
where `raw_sequences.plan` finds them. Rows of sequences that are scattered over the file are gathered first.
"""

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from bfrbctl.artefacts.folders import pinned_file
from bfrbctl.artefacts.outputs import Output
from bfrbctl.errors import DataError
from bfrbctl.execution.executor import Executor, run_tasks
from bfrbctl.recordings.dataset import frames_file
from bfrbctl.recordings.frames_files import FramesSpec, Made, Notes, checked, frames_table, make_file, notes_file
from bfrbctl.recordings.raw import OnBytes, RawSplit, Unsorted
from bfrbctl.recordings.raw_sequences import Part, gather, plan, whole_sequences

_MANY = 1 << 20
"""More tasks than any executor runs at once: where these run in this process, all do."""


@dataclass(frozen=True)
class FramesWriter:
    """Writes the frames files of a split.

    Parameters
    ----------
    split
        The raw file.
    spec
        How its sequences become frames files.
    output
        The dataset.
    rows
        A frames file is closed by the sequence that brings it to this many rows or more.
    first_file
        Number of its first frames file.
    executor
        Where the frames files are made.
    """

    split: RawSplit
    spec: FramesSpec
    output: Output
    rows: int
    first_file: int
    executor: Executor

    def write(self, on_bytes: OnBytes | None) -> Notes:
        """Write them all; gives the notes of all."""
        try:
            parts = self._parts()
            if parts is not None:
                with suppress(DataError):  # streaming finds the first bad row: one message for any number of workers
                    return self._from_parts(parts, on_bytes)
            return self._streamed(on_bytes)
        except Unsorted:
            first = frames_file(self.first_file)
            self.output.forget([name for name in self.output.parts if name >= first])
        with self.output.scratch(f"gathered-{self.split.name}") as folder:
            parts = gather(self.split.frames, self.spec.schema, rows=self.rows, folder=folder.absolute())
            return self._from_parts(parts, None)

    def _parts(self) -> Sequence[Part] | None:
        """Find the parts of a sorted file; None where it must be streamed, or where that is faster."""
        resumed = self.output.resumed
        if self.executor.here(_MANY) and not resumed:
            return None  # a stream reads ahead while it works: faster than first finding where sequences begin
        parts = plan(self.split.frames.absolute(), self.rows)
        return parts if parts is not None and (resumed or len(parts) > 1) else None

    def _streamed(self, on_bytes: OnBytes | None) -> Notes:
        """Read the file here, in its order."""
        result, demographics = Notes(), self.spec.read_demographics()
        tables = whole_sequences(self.split.frames, self.spec.schema, rows=self.rows, on_bytes=on_bytes)
        for number, table in enumerate(tables, self.first_file):
            cleaned = checked(table, self.spec, demographics)
            notes, name = Notes.of(cleaned, number), frames_file(number)
            result.add(notes)
            if not result.faults and not self.output.has(name):
                frames = frames_table(cleaned, self.spec.layout)
                self.output.publish(name, {name: frames, notes_file(number): notes.pack()})
        return result

    def _from_parts(self, parts: Sequence[Part], on_bytes: OnBytes | None) -> Notes:
        """Make a frames file of every part, but for those that an earlier run has made."""
        result = Notes()
        numbered = list(enumerate(parts, self.first_file))
        tasks = [(part, number, self.spec) for number, part in numbered if not self._has(number)]
        todo = {number for _, number, _ in tasks}
        if todo:
            self.executor.check_paths(self.output.path, *map(pinned_file, self.split.paths))
        with closing(run_tasks(make_file, tasks, executor=self.executor)) as made:
            for number, part in numbered:
                result.add(self._publish(number, next(made), result) if number in todo else self._read(number))
                if on_bytes:
                    on_bytes(part.n_bytes)
        return result

    def _has(self, number: int) -> bool:
        name = frames_file(number)
        return self.output.has(name) and notes_file(number) in self.output.parts[name]

    def _read(self, number: int) -> Notes:
        name = notes_file(number)
        return Notes.unpack(self.output.read(name), name)

    def _publish(self, number: int, made: Made, result: Notes) -> Notes:
        """Publish a frames file, unless it or one before it has sequences that cannot be used."""
        name = frames_file(number)
        if made.frames and result.faults:
            made.frames.unlink()
        elif made.frames:
            self.output.publish(name, {name: made.frames, notes_file(number): made.notes})
        return Notes.unpack(made.notes, notes_file(number), made.faults)
