"""The programs that come with Lightning itself."""

import pytest
from lightning.pytorch.demos import LightningTransformer, WikiText2
from lightning.pytorch.demos.boring_classes import (
    BoringModel,
    ManualOptimBoringModel,
)
from side_by_side import fit, fit_beside_dense
from torch.utils.data import DataLoader

from razorlight import BackRazor, RazorError

pytestmark = pytest.mark.clients


@pytest.mark.parametrize("model", [BoringModel, ManualOptimBoringModel])
def test_one_layer_is_nothing_to_convert(model, tmp_path):
    with pytest.raises(RazorError, match="1 first layer: its input is the batch; name layers"):
        fit(model, tmp_path, BackRazor())
    dense = fit(model, tmp_path)
    assert fit(model, tmp_path, BackRazor("exact", include=["layer"])) == pytest.approx(dense)


@pytest.mark.parametrize(
    ("recipe", "less", "tolerance"), [("exact", 1.5, 1e-4), ("balanced", 4, 0.05)]
)
def test_language_model(recipe, less, tolerance, tmp_path, monkeypatch):
    pytest.importorskip("requests")
    monkeypatch.chdir(tmp_path)  # where it looks for its text, or downloads it
    lines = (" ".join(f"word{i * j % 19}" for j in range(1, 40)) for i in range(1, 40))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "wikitext-2.txt").write_text("\n".join(lines))
    dense, razor, found = fit_beside_dense(
        lambda: LightningTransformer(vocab_size=20),
        tmp_path,
        recipe,
        DataLoader(WikiText2(download=False), batch_size=16),
    )
    assert razor == pytest.approx(dense, rel=tolerance)
    assert found > less
