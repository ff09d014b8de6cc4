"""The picture of a run's metrics."""

import matplotlib.image
import pytest

from razorlight.callbacks.metrics_plot import read_metrics, save_metrics_plot

CSV = """\
epoch,step,lr,train/loss,val/loss,val/mIoU,memory/train_peak_mib
0,4,0.1,2.5,,,
0,9,,,1.5,0.25,88
0,9,,2.0,,,
1,19,,1.0,,,
1,19,,,nan,0.5,88
1,19,,,,0.75,
"""


def test_what_is_read(tmp_path):
    (tmp_path / "metrics.csv").write_text(CSV)
    curves = read_metrics(tmp_path / "metrics.csv")
    assert curves["train/loss"] == {4: 2.5, 9: 2.0, 19: 1.0}
    assert curves["val/mIoU"] == {9: 0.25, 19: 0.75}
    assert "step" not in curves


@pytest.mark.parametrize(
    ("names", "width"), [(["train/loss", "val/mIoU"], 2), (["val/loss"], 1), (["lr"], 0)]
)
def test_losses_beside_scores(tmp_path, names, width):
    (tmp_path / "metrics.csv").write_text(CSV)
    curves = {n: c for n, c in read_metrics(tmp_path / "metrics.csv").items() if n in names}
    save_metrics_plot(curves, tmp_path / "metrics.png")
    assert (tmp_path / "metrics.png").exists() == bool(width)
    if width:
        image = matplotlib.image.imread(tmp_path / "metrics.png")
        assert image.shape[1] == (5 * width + 1) * 120
        assert image.std() > 0
