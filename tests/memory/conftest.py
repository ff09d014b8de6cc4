import pytest
import torch


class FakeAllocator:
    """Stands in for the statistics of CUDA's allocator, which count all of the process."""

    now = highest = 0

    def allocate(self, size: int) -> None:
        self.now += size
        self.highest = max(self.highest, self.now)

    def free(self, size: int) -> None:
        self.now -= size

    def reset_peak(self, device: torch.device) -> None:
        self.highest = self.now


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> FakeAllocator:
    fake = FakeAllocator()
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", fake.reset_peak)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: fake.now)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: fake.highest)
    return fake
