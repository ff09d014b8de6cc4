"""Runs killed at any moment, by SIGKILL, and resumed: nothing is lost, and they end the same."""

import random
import signal

import pytest
import torch
from accidents.killed_runs import (
    EPOCHS,
    Server,
    check_nothing_lost,
    checkpoints,
    make_images,
    memory_epochs,
    resumable,
    train_peaks,
    val_losses,
)

OPERATIONS = 45
"""Kills come at one of the first; a whole run has 63 that write."""

BETWEEN = 30
"""The one that makes the first epoch's checkpoint the last, after all its metrics are written."""


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """A run that nothing befell."""
    folder = tmp_path_factory.mktemp("killed")
    make_images(folder / "images")
    assert server.fit(folder / "whole") == 0, (folder / "whole" / "log").read_text()
    return folder / "whole"


def assert_ended_as(whole, folder):
    one, other = resumable(whole), resumable(folder)
    assert val_losses(one) == val_losses(other)
    assert len(val_losses(other)) == EPOCHS
    assert train_peaks(other) == memory_epochs(other) == set(range(EPOCHS))
    ends = [checkpoints(run.parents[2])[run / "checkpoints" / "last.ckpt"] for run in (one, other)]
    for name, tensor in ends[0]["state_dict"].items():
        assert torch.equal(tensor, ends[1]["state_dict"][name]), name


def random_kill(number):
    """By turns after a time, at an operation on files, and within a write to one."""
    draw = random.Random(number)
    return [
        {"seconds": draw.uniform(0.3, 3)},
        {"operation": draw.randrange(1, OPERATIONS)},
        {"operation": draw.randrange(1, OPERATIONS), "bytes": draw.randrange(1, 4_500_000)},
    ][number % 3]


def kill_and_resume(server, whole, kills, name):
    """Kill a run again and again, then let it end; gives how many kills found it running."""
    folder, injected = whole.with_name(name), 0
    for kill in kills:
        status = server.fit(folder, **kill)
        assert status <= 0, (folder / "log").read_text()
        injected += status < 0
        check_nothing_lost(folder)
        if status == 0:
            break
    assert server.fit(folder) == 0, (folder / "log").read_text()
    assert_ended_as(whole, folder)
    return injected


def test_killed_and_resumed(server, whole):
    kills = [
        {"operation": 12},  # while metrics.csv gets new columns
        {"operation": 22, "bytes": 1_000_000},  # within a checkpoint
        {"operation": BETWEEN},
        {"operation": BETWEEN + 15},  # in the second epoch
    ]
    assert kill_and_resume(server, whole, kills, "some") >= 3


@pytest.mark.parametrize("number", [8, 20, BETWEEN])
def test_ctrl_c_twice(server, whole, number):
    folder = whole.with_name(f"interrupted{number}")
    assert server.fit(folder, operation=number, interrupts=2) == 130
    assert "Traceback" not in (folder / "log").read_text()
    check_nothing_lost(folder)
    assert server.fit(folder) == 0
    assert len(val_losses(resumable(folder))) == EPOCHS


@pytest.mark.parametrize("number", [16, 28, BETWEEN, 40])
def test_sigterm(server, whole, number):
    folder = whole.with_name(f"terminated{number}")
    assert server.fit(folder, operation=number, interrupts=2, signal=signal.SIGTERM) == 143
    log = (folder / "log").read_text()
    run = resumable(folder).relative_to(folder)
    assert f"interrupted; to go on: razorlight fit --config {run}/config.yaml --ckpt_path l" in log
    assert "Traceback" not in log
    assert not list(folder.rglob("next.ckpt"))
    check_nothing_lost(folder)
    assert server.fit(folder) == 0
    assert len(val_losses(resumable(folder))) == EPOCHS


@pytest.mark.long
def test_killed_and_resumed_often(server, whole):
    injected = sum(
        kill_and_resume(server, whole, map(random_kill, range(4 * n, 4 * n + 4)), f"chain{n}")
        for n in range(24)
    )
    print(f"\n{injected} kills injected, {injected} survived, 0 lost")
    assert injected >= 50
