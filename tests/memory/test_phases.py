import pytest
import torch

from razorlight.memory.meter import storage_bytes
from razorlight.memory.phases import PhaseMeter


def run_step(phases, size, held=()):
    phases.start_step(lambda: held)
    made = torch.zeros(size)
    phases.end_step()
    del made


def test_cpu_phases_do_not_mix():
    phases = PhaseMeter(torch.device("cpu"))
    phases.enter("train", steps=1)
    run_step(phases, 100)
    phases.enter("val", steps=1)
    run_step(phases, 1000)
    phases.leave()
    assert phases.peaks == {"train": 400, "val": 4000}
    phases.reset()
    assert phases.peaks == {}


def test_cpu_measures_the_first_steps_of_an_epoch_and_only_within_a_phase():
    phases = PhaseMeter(torch.device("cpu"))
    run_step(phases, 10**6)  # before any phase
    phases.enter("train", steps=2)
    run_step(phases, 100)
    phases.enter("val", steps=2)
    phases.enter("train", steps=2)  # the same epoch's phase, resumed
    run_step(phases, 200)
    run_step(phases, 1000)  # the third step
    phases.leave()
    assert phases.peaks == {"train": 800, "val": 0}


def test_each_dataloader_has_its_first_steps():
    phases = PhaseMeter(torch.device("cpu"))
    phases.enter("val", steps=1)
    for loader, measured in ((0, True), (0, False), (1, True)):
        phases.start_step(tuple, loader)
        assert phases.measuring == measured
        phases.end_step()


def test_leaving_within_a_step_turns_the_meter_off():
    phases = PhaseMeter(torch.device("cpu"))
    phases.enter("train", steps=1)
    phases.start_step(tuple)
    phases.leave()
    torch.zeros(10**6)
    assert not phases.measuring
    assert phases.peaks == {"train": 0}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_stored_is_what_is_beside_the_held(allocator, device):
    phases = PhaseMeter(torch.device(device))
    held = {"weight": torch.zeros(1000), "gradient": torch.zeros(1000)}
    allocator.allocate(10**9 + storage_bytes(held))
    phases.enter("train", steps=1)
    phases.start_step(lambda: held)
    kept = torch.zeros(100)
    allocator.allocate(storage_bytes(kept))
    del held["gradient"]  # set to None between forward and backward
    allocator.free(4000)
    phases.note_stored()
    phases.leave()
    assert phases.stored == storage_bytes(kept) == 400


def test_cuda_phases_count_every_step_and_what_is_between_them(allocator):
    phases = PhaseMeter(torch.device("cuda"))
    allocator.allocate(10)
    phases.enter("train", steps=1)
    for _ in range(3):
        phases.start_step(tuple)
        phases.end_step()
    allocator.allocate(90)
    allocator.free(90)
    phases.enter("val", steps=1)
    allocator.allocate(1000)
    allocator.free(1000)
    phases.enter("train", steps=1)
    allocator.allocate(50)
    allocator.free(50)
    phases.leave()
    assert phases.peaks == {"train": 100, "val": 1010}
