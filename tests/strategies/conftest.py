import pytest
from processes import Processes


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    two = Processes(tmp_path_factory.mktemp("processes") / "meeting_point")
    yield two
    two.close()
