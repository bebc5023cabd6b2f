"""What `train --plan` shows: the time, memory and disk that a training will take."""

from pathlib import Path
from typing import TYPE_CHECKING

from bfrbctl.cli.options import DisplayOptions
from bfrbctl.cli.results import show_result
from bfrbctl.cli.training_progress import duration

if TYPE_CHECKING:
    from bfrbctl.execution.executor import Executor
    from bfrbctl.training.cross_validation import CrossValidation
    from bfrbctl.training.estimate import Estimate

ASSUMES = "later steps and other folds take as long as those tried, and nothing else keeps the machine busy"


def show_plan(run: "CrossValidation", model: Path, executor: "Executor", display: DisplayOptions) -> None:
    """Run a few steps of a training, show what all of it will take, and write nothing."""
    from bfrbctl.config import as_mapping
    from bfrbctl.execution.memory import available_memory
    from bfrbctl.training.estimate import estimate, free_disk

    found = estimate(run, executor)
    memory, free = available_memory(), free_disk(model)
    result = {**as_mapping(found), "memory_there_bytes": memory, "disk_free_bytes": free}
    result |= {"step": run.config.STEP, "n_tasks": found.n_folds * found.n_members, "assumes": ASSUMES}
    lines = _plan_lines(found, run.config.STEP, memory=memory, free=free)
    show_result(
        {"output": model, **result},
        lines=[f"plan of {model}, which is not written:", *lines],
        next_command=None,
        display=display,
    )


def _plan_lines(found: "Estimate", step: str, *, memory: int | None, free: int) -> list[str]:
    """Lay an estimate out as a small table."""
    took, article = found.measured, "an" if step[0] in "aeiou" else "a"
    around = took.prepare_s + took.finish_s
    begin = f"{took.read_s:.1f} s to read features, {took.start_s:.1f} s to start"
    rows = {
        "models": f"{found.n_folds} folds x {found.n_members}, {found.at_once} at once, threads each: {found.threads}",
        "time": f"about {duration(found.seconds)}",
        "": f"{found.seconds_a_step:.3g} s {article} {step}, {found.n_steps} a model; {begin}, "
        f"{around:.1f} s more a fold",
        "memory": f"{_size(found.memory_bytes)}{f' of {_size(memory)}' if memory else ''}",
        "disk": f"at most {_size(found.folder_bytes)} finished and {_size(found.disk_bytes)} while it trains, "
        f"of {_size(free)} free",
        "assumes": ASSUMES,
    }
    return [f"{name:<9}{text}" for name, text in rows.items()]


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
