"""What a checkpoint costs training: ours, torch.save, torch.distributed.checkpoint.async_save.

A stack of linear layers with AdamW's state is trained in this process. Every so many steps its
state is saved, by each way in turn. The *stall* of a checkpoint is what all steps from its
beginning until it is written took longer than as many steps just before it, less the time of a
plain copy of the state to host memory that is already reserved. torch.save stalls for the whole
write; neither it nor the async save waits for the disk, ours flushes and hashes what it writes.
The last row saves nothing, for as long as ours takes: what the same sum says of steps that nobody
disturbs is the noise of this machine.

    python tests/bench/checkpoint.py --json
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from peers.keeper import Keeper
from peers.portrait import Portrait
from swarmnet.config import PeerConfig
from swarmnet.inner.adamw import AdamW
from swarmnet.train.flat import flatten_parameters
from swarmnet.train.mirror import Mirror

WIDTH = 512
ROWS = 16
WARM_UP, PLAIN, BETWEEN = 3, 12, 4
"""Steps before anything is measured, steps without a checkpoint, and steps between two."""
MOST_STEPS = 400
"""In which a checkpoint has to be on the disk."""
LR = 1e-3


@dataclass(frozen=True)
class Row:
    """One way with one size. Seconds unless named; ``ratio`` is to torch.save's median stall."""

    way: str
    parameters: int
    bytes: int
    copy_ms: float
    step_ms: float
    stall_median_ms: float
    stall_max_ms: float
    longest_step_ms: float
    write_s: float
    core_s: float
    ratio: float = 1.0


class Model:
    """Parameters in one vector, its optimizer, and a step on random rows."""

    def __init__(self, millions: float) -> None:
        torch.manual_seed(0)
        layers = max(1, round(millions * 1e6 / (WIDTH * WIDTH)))
        self.module = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))
        self.theta = flatten_parameters(self.module)
        self.inner = AdamW(AdamW.Config(), list(self.module.parameters()))
        self._rows = torch.randn(ROWS, WIDTH)

    def step(self) -> None:
        self.module(self._rows).square().mean().backward()
        self.inner.step(LR)

    def live(self) -> dict[str, Tensor]:
        return {"theta": self.theta} | self.inner.tensors()

    @property
    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.live().values())


class Way(Protocol):
    """How a checkpoint is made. ``begin`` is called between two steps."""

    def begin(self, model: Model, folder: Path, number: int) -> None: ...
    def busy(self) -> bool: ...


class Ours:
    """A worker's mirror and keeper."""

    def __init__(self) -> None:
        self._keeper: Keeper | None = None
        self._mirror = Mirror(torch.device("cpu"))

    def begin(self, model: Model, folder: Path, number: int) -> None:
        if self._keeper is None:
            peer = PeerConfig(checkpoints=1, hourly=0)
            self._keeper = Keeper(folder, "bench", peer, lambda event: None)
        facts = {"fingerprint": "bench", "step": number, "elapsed_s": 0.0}
        mirror = self._mirror
        self._keeper.write(
            lambda: Portrait(mirror.take(model.live()), facts, mirror.finish), wait=False
        )

    def busy(self) -> bool:
        return self._keeper is not None and self._keeper.busy


class TorchSave:
    """Synchronous, without a flush."""

    def begin(self, model: Model, folder: Path, number: int) -> None:
        torch.save(model.live(), folder / f"{number % 2}.pt")

    def busy(self) -> bool:
        return False


class Distributed:
    """torch.distributed.checkpoint.async_save, of a process group of one."""

    def __init__(self) -> None:
        self._future: Any = None

    def begin(self, model: Model, folder: Path, number: int) -> None:
        import torch.distributed as dist
        import torch.distributed.checkpoint as dcp

        if not dist.is_initialized():
            store = dist.HashStore()
            dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        shutil.rmtree(folder / str(number - 2), ignore_errors=True)
        self._future = dcp.async_save(model.live(), checkpoint_id=str(folder / str(number)))

    def busy(self) -> bool:
        return self._future is not None and not self._future.done()


class Nothing:
    """No checkpoint, for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = 0.0

    def begin(self, model: Model, folder: Path, number: int) -> None:
        self._until = time.perf_counter() + self._seconds

    def busy(self) -> bool:
        return time.perf_counter() < self._until


WAYS: dict[str, Callable[[], Way]] = {
    "swarmnet": Ours,
    "torch.save": TorchSave,
    "dcp.async_save": Distributed,
}


def measure(millions: float, times: int, folder: Path) -> list[Row]:
    model = Model(millions)
    for _ in range(WARM_UP):
        model.step()
    copy_s = _copy_s(model)
    rows = []
    for name, make in WAYS.items():
        place = folder / name
        place.mkdir()
        rows.append(_row(name, make(), model, place, times, copy_s))
        shutil.rmtree(place)
    rows.append(_row("nothing", Nothing(rows[0].write_s), model, folder, times, 0.0))
    sync = next(row for row in rows if row.way == "torch.save").stall_median_ms
    return [Row(**(asdict(row) | {"ratio": row.stall_median_ms / sync})) for row in rows]


def _copy_s(model: Model) -> float:
    """A plain copy of the state into memory that is there already: the median of three."""
    mirror, times = Mirror(torch.device("cpu")), list[float]()
    for _ in range(4):
        began = time.perf_counter()
        mirror.take(model.live())
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _row(name: str, way: Way, model: Model, folder: Path, times: int, copy_s: float) -> Row:
    way.begin(model, folder, 0)  # reserves memory, starts threads
    _steps_while(model, way)
    plain = [_timed(model.step) for _ in range(PLAIN)]
    stalls, longest, writes = list[float](), list[float](), list[float]()
    core_s = 0.0
    for number in range(1, times + 1):
        plain = plain[BETWEEN:] + [_timed(model.step) for _ in range(BETWEEN)]
        step_s = statistics.mean(plain)
        cpu, began = _cpu_s(), time.perf_counter()
        steps = [_timed(lambda n=number: (way.begin(model, folder, n), model.step()))]
        steps += _steps_while(model, way)
        writes.append(time.perf_counter() - began)
        core_s += _cpu_s() - cpu - len(steps) * step_s * torch.get_num_threads()
        stalls.append(sum(steps) - len(steps) * step_s - copy_s)
        longest.append(max(steps) - step_s - copy_s)
    return Row(
        way=name,
        parameters=model.theta.numel(),
        bytes=model.nbytes,
        copy_ms=1000 * copy_s,
        step_ms=1000 * statistics.median(plain),
        stall_median_ms=1000 * statistics.median(stalls),
        stall_max_ms=1000 * max(stalls),
        longest_step_ms=1000 * max(longest),
        write_s=statistics.median(writes),
        core_s=core_s / times,
    )


def _steps_while(model: Model, way: Way) -> list[float]:
    """Step until the checkpoint is written."""
    steps: list[float] = []
    while way.busy() and len(steps) < MOST_STEPS:
        steps.append(_timed(model.step))
    return steps


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 10, 100])
    parser.add_argument("--times", type=int, default=5, help="checkpoints of each way")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--folder", type=Path, help="where to write; the default is temporary")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    for millions in options.millions:
        with tempfile.TemporaryDirectory(prefix="checkpoint-", dir=options.folder) as folder:
            rows += measure(millions, options.times, Path(folder))
    if options.json:
        json.dump({"rows": [asdict(row) for row in rows]}, sys.stdout, indent=1)
        print()
    else:
        print(_table(rows))
    return 0


def _table(rows: list[Row]) -> str:
    names = list(asdict(rows[0]))
    lines = ["  ".join(f"{name:>15}" for name in names)]
    for row in rows:
        cells = [f"{v:15.2f}" if isinstance(v, float) else f"{v:>15}" for v in asdict(row).values()]
        lines.append("  ".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
