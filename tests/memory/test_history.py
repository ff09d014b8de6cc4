import pytest

from razorlight.errors import RazorError
from razorlight.memory.history import PhaseMemory, append_history, check_history, read_history

TRAIN = PhaseMemory(0, "train", 12.5, 4.25, 1.0, 1.0, 2.0)
VAL = PhaseMemory(0, "val", 7.125)


def test_rows_come_back_and_later_ones_are_appended(tmp_path):
    path = tmp_path / "run" / "memory.csv"
    append_history(path, [TRAIN, VAL])
    append_history(path, [PhaseMemory(1, "train", 13.0)])
    check_history(path)
    assert read_history(path) == [TRAIN, VAL, PhaseMemory(1, "train", 13.0)]
    assert path.read_text().splitlines() == [
        "epoch,phase,peak_mib,stored_mib,parameters_mib,gradients_mib,optimizer_mib",
        "0,train,12.500,4.250,1.000,1.000,2.000",
        "0,val,7.125,,,,",
        "1,train,13.000,,,,",
    ]


def test_a_strange_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "memory.csv"
    check_history(path)
    path.write_text("")
    check_history(path)
    path.write_text("name,score\nann,3\n")
    with pytest.raises(RazorError, match=r"memory\.csv: its columns are name,score") as error:
        check_history(path)
    assert "\n" not in str(error.value)
