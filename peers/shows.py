"""The two demos as the terminal shows them: a live view, and what is said at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from peers.console import shown
from peers.demo import Demo
from peers.live import LiveView
from peers.local import Wishes, prepare, prepare_pipeline
from peers.pipeline.demo import PipelineDemo
from peers.pipeline.summary import accounted
from peers.pipeline.view import PipelineView
from peers.stop import Stop

Shown = tuple[dict[str, Any], list[str]]
"""The summary of a run, and the lines that say it."""
WORKERS = 4


def show_workers(wishes: Wishes, folder: Path, *, churn: bool, solo: bool) -> Shown:
    """Raises SwarmnetError."""
    wishes = replace(wishes, workers=wishes.workers or WORKERS)
    options = prepare(wishes, folder, churn=churn, solo=solo)
    view = LiveView(f"{options.run.config.name}: {options.workers} workers, {folder}")
    stop = _stop()
    with shown(view):
        summary = Demo(options, stop, view.update).run()
    return summary, closing_lines(summary, folder)


def show_pipeline(wishes: Wishes, folder: Path, *, churn: bool) -> Shown:
    """Raises SwarmnetError."""
    options = prepare_pipeline(wishes, folder, churn=churn)
    config = options.run.config
    stages = config.pipeline.stages
    view = PipelineView(f"{config.name}: {options.peers} peers, {stages} stages, {folder}")
    stop = _stop()
    with shown(view):
        summary = PipelineDemo(options, stop, view.update).run()
    return summary, pipeline_lines(summary, folder)


def _stop() -> Stop:
    stop = Stop()
    stop.on_signals()
    return stop


def closing_lines(summary: dict[str, Any], folder: Path) -> list[str]:
    """What the demo says when it is over."""
    evaluation, exchanges = summary["eval"], summary["exchanges"]
    lines = [
        f"merged model [bold]{evaluation['merged']:.3f}[/] nats per token on held-out text; "
        f"replicas {evaluation['mean_of_peers']:.3f}",
        f"{summary['steps']} steps a worker (median), {exchanges['ok']} exchanges, "
        f"{summary['bytes_sent'] / 1e6:.0f} MB sent, {summary['seconds']:.0f} s",
        f"report: {folder / 'report.html'}   model: {folder / 'model'}",
    ]
    if any(worker["slowdown"] > 1 for worker in summary["workers"]):
        lines[2:2] = [worker_line(worker) for worker in summary["workers"]]
    if summary.get("speedup") is not None:
        lines.insert(1, f"one worker alone needs {summary['speedup']} times the steps for that")
    return lines


def worker_line(worker: dict[str, Any]) -> str:
    """What one worker did, when not all are alike."""
    marks = [name for name in ("killed", "joined") if worker[name]]
    if worker["slowdown"] > 1:
        marks.append(f"{worker['slowdown']:g} times slower")
    stalled = 100 * (worker["stall_fraction"] or 0.0)
    return (
        f"{worker['name']}: {worker['steps']} steps, {worker['met_in_training']} meetings while "
        f"training, {worker['solo']} alone, stalled {stalled:.1f} % of its time"
        + "".join(f", {mark}" for mark in marks)
    )


def pipeline_lines(summary: dict[str, Any], folder: Path) -> list[str]:
    """What the demo of a pipeline says when it is over."""
    ledger, ending = summary["ledger"], summary["checkpoint"]
    counted = "each in one step of every stage" if accounted(summary) else "NOT ALL ACCOUNTED FOR"
    again = ledger["attempts"] - ledger["begun"]
    apart = ending["logits_difference"]
    same = "its boundaries are trained, so it is read stage by stage"
    if apart is not None:
        same = f"logits within {apart:.1e} of the stages"
    return [
        f"joined model [bold]{summary['eval']['merged']:.3f}[/] nats per token on held-out text; "
        f"{same}",
        f"{ledger['begun']} samples, {counted}; {again} sent again",
        *(stage_line(stage) for stage in summary["stages"]),
        f"{summary['bytes_sent'] / 1e6:.0f} MB sent, {summary['seconds']:.0f} s",
        f"report: {folder / 'report.html'}   model: {folder / 'model'}",
    ]


def stage_line(stage: dict[str, Any]) -> str:
    return f"stage {stage['stage']}: {stage['steps']} steps, served by {', '.join(stage['peers'])}"
