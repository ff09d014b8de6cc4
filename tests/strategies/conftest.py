import pytest
import torch.distributed as dist
from processes import Processes


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    two = Processes(tmp_path_factory.mktemp("processes") / "meeting_point")
    yield two
    two.close()


@pytest.fixture(autouse=True)
def alone():
    """Whatever group Lightning makes of this one process ends with the test."""
    yield
    if dist.is_initialized():
        dist.destroy_process_group()
