"""What befalls a run of the command line: one line, nothing lost, and it goes on afterwards."""

import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from accidents.killed_runs import EPOCHS, checkpoints, memory_epochs, val_losses
from torch.utils.data import get_worker_info

from razorlight.cli import main
from razorlight.tasks import ClassificationTask

RUN = Path("runs/small/version_0")


def fit(*options):
    return main(["fit", "--config", "small.yaml", *options])


@pytest.fixture
def limited():
    """Limit the size of files, as a full disk would; gives the limit's setter."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def mount(folder):
    """Mounts a small file system on a folder."""
    mounted = []

    def mount(path, *options):
        path.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(path)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount")
        mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


def test_a_file_that_cannot_be_written_to_its_end(folder, limited, error_line):
    assert fit("--trainer.max_epochs=1") == 0
    before = (RUN / "checkpoints/last.ckpt").read_bytes()
    limited(100_000)
    assert fit("--ckpt_path=last") == 1
    assert error_line().endswith(".ckpt; free some space, then go on with --ckpt_path last")
    assert (RUN / "checkpoints/last.ckpt").read_bytes() == before
    assert not list(folder.rglob("*.new"))
    limited(resource.RLIM_INFINITY)
    assert fit("--ckpt_path=last") == 0
    assert val_losses(RUN).keys() == memory_epochs(RUN) == set(range(EPOCHS))


def test_a_full_disk(folder, mount, error_line):
    mount(folder / "runs", "size=12m")  # two checkpoints, and not a third
    assert fit() == 1
    assert error_line().startswith("error: No space left on device: ")
    assert all(checkpoint["state_dict"] for checkpoint in checkpoints(folder).values())


def test_a_folder_that_cannot_be_written_to(folder, mount, error_line):
    mount(folder / "runs", "ro")
    assert fit() == 1
    line = error_line()
    assert line.startswith("error: Read-only file system: ")
    assert "let the run write elsewhere: save_dir" in line


def test_a_file_where_the_folder_should_be(folder, error_line):
    Path("runs").write_text("mine")
    assert fit() == 1
    assert "runs/small; let the run write elsewhere" in error_line()
    assert Path("runs").read_text() == "mine"


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(1)])
def test_a_worker_of_the_loader_dies(folder, monkeypatch, error_line, end):
    monkeypatch.setattr(
        "razorlight.data.image_readers.read_image",
        lambda path: end() if get_worker_info() else None,
    )
    assert fit("--data.num_workers=1") == 1
    assert "a process that loads data died; take fewer of them, data.num_workers" in error_line()


def test_a_loss_that_is_not_a_number(folder, monkeypatch, error_line):
    plain = ClassificationTask.training_loss

    def broken(self, images, targets):
        return plain(self, images, targets) * (torch.nan if self.current_epoch else 1)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "training_loss", broken)
        assert fit() == 1
    assert "is not finite after epoch 1, and was not saved; lower the learning rate" in error_line()
    last = torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 2
    assert all(value.isfinite().all() for value in last["state_dict"].values())
    assert fit("--ckpt_path=last") == 0
    assert val_losses(RUN).keys() == set(range(EPOCHS))


def allocate(*_):
    return torch.empty(2**50)


def on_a_gpu(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("run_out", [allocate, on_a_gpu])
@pytest.mark.parametrize(
    ("razor", "advice"),
    [
        ("true", "in place of balanced take recipe compact, or take a small"),
        ("false", "train by a recipe (callback BackRazor), or take a smaller batch"),
    ],
)
def test_out_of_memory(folder, monkeypatch, error_line, run_out, razor, advice):
    monkeypatch.setattr(ClassificationTask, "training_loss", run_out)
    assert fit(f"--razor={razor}") == 1
    line = error_line()
    assert line.startswith("error: out of memory: ")
    assert advice in line


def test_a_checkpoint_of_another_network(folder, error_line):
    assert fit("--trainer.max_epochs=1") == 0
    last = str(RUN / "checkpoints/last.ckpt")
    assert fit(f"--ckpt_path={last}", "--model.model=test_vit") == 1
    assert "ckpt_path: the checkpoint is of another network: 80 names of this" in error_line()
