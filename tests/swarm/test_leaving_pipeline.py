"""Real stage peers and trainers that are told to leave or to rest: no sample is lost by it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.swarm.test_pipeline import (
    check_settled,
    check_steps,
    end,
    pipeline,
    wait_steps,
)


def test_a_stage_peer_and_a_trainer_that_leave_lose_nobody_a_sample(tmp_path: Path) -> None:
    with pipeline(tmp_path) as herd:
        herd.stage("s0", 0)
        goer = herd.stage("s1a", 1)
        herd.stage("s1b", 1)
        trainer, other = herd.trainer("t"), herd.trainer("u")
        wait_steps(herd, "s0", "s1a", "s1b")
        os.kill(goer.pid, signal.SIGUSR1)
        wait_steps(herd, "s0", "s1b")
        os.kill(goer.pid, signal.SIGUSR2)
        wait_steps(herd, "s0", "s1a", "s1b")
        told = time.time()
        goer.terminate()
        herd.wait(lambda: not goer.running, "exit")
        assert goer.exit_code == 4
        herd.poll()
        [last] = herd.of("s1a", "peer_finished")
        assert last["reason"] == "left: SIGTERM"
        assert last["time"] - told < 5.0
        assert herd.of("s1a", "checkpoint")[-1]["time"] > told
        wait_steps(herd, "s0", "s1b")
        told = time.time()
        other.terminate()
        herd.wait(lambda: not other.running, "exit of a trainer")
        assert other.exit_code == 4
        herd.poll()
        assert herd.of("u", "peer_finished")[0]["time"] - told < 5.0
        wait_steps(herd, "s0", "s1b")
        end(herd)
        herd.wait_finished("t", "s0", "s1b")
        trainer.join(20.0)
        herd.poll()
        check_settled(herd, "t")
        check_steps(herd, ["s0"], ["s1a", "s1b"])


def test_a_replica_of_a_stage_hands_its_steps_to_a_mate(tmp_path: Path) -> None:
    apart = ("pipeline.step=apart", "pipeline.batch=8", "outer=noloco", "schedule.warmup=0.0")
    with pipeline(tmp_path, *apart, "cadence.name=every_h", "cadence.h=1000") as herd:
        herd.stage("s0", 0)
        goer = herd.stage("s1a", 1)
        herd.stage("s1b", 1)
        herd.trainer("t")
        wait_steps(herd, "s0", "s1a", "s1b")
        goer.terminate()
        herd.wait(lambda: not goer.running, "exit")
        assert goer.exit_code == 4
        herd.wait(lambda: herd.of("s1a", "farewell"), "farewell")
        assert herd.of("s1a", "farewell")[0]["outcome"] == "given"
        wait_steps(herd, "s0", "s1b")
