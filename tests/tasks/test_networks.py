"""Names and arguments of networks that must be refused, with the way out."""

import re
import socket
import time

import pytest
import timm
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from razorlight.errors import RazorError
from razorlight.tasks import hub
from razorlight.tasks.networks import smp_network, timm_network


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: timm_network("resnt18", 2, "none", {}),
            "model: there is no 'resnt18'; .*resnet18",
        ),
        (lambda: smp_network("Unett", "resnet18", 2, "none", {}), "there is no 'Unett'; .* Unet"),
        (lambda: smp_network("Unet", "resnt18", 2, "none", {}), "no 'resnt18'; .* resnet18"),
        (lambda: smp_network("Unet", "tu-resnt18", 2, "none", {}), "'tu-resnt18'; .* tu-resnet18"),
        (lambda: timm_network("resnet18", 2, "none", {"im_size": 3}), "model_args: .*'im_size'"),
        (
            lambda: smp_network("Unet", "resnet18", 2, "none", {"dpth": 3}),
            "model_args: there is no 'dpth'; .*encoder_depth",
        ),
        (
            lambda: smp_network("Unet", "tu-resnet18", 2, "none", {"dpth": 3}),
            "model_args: .*'dpth'",
        ),
        (lambda: timm_network("test_vit.x", 2, "pretrained", {}), "no pretrained weights"),
        (lambda: smp_network("Unet", "dpn68b", 2, "pretrained", {}), "no ImageNet weights"),
        (lambda: timm_network("resnet10t", 2, "x.pth", {}), "'x.pth' is no file"),
        (lambda: timm_network("resnet10t", 2, None, {}), "weights are None; give none, pretrained"),
    ],
)
def test_refused_in_one_line(build, message):
    with pytest.raises(RazorError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_failed_download_offers_a_path(monkeypatch):
    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError("check your connection")

    monkeypatch.setattr(hub, "_answers", lambda url: True)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(RazorError, match=re.escape("(check your connection); connect, or give")):
        timm_network("resnet18", 2, "pretrained", {})


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://nowhere.invalid"])
def test_offline_the_hub_is_asked_once(monkeypatch, url):
    requests = []

    def asked(*args, **kwargs):
        requests.append(constants.HF_HUB_OFFLINE)
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(timm, "create_model", asked)
    begun = time.monotonic()
    with pytest.raises(RazorError, match=r"[(]no network, and they are not in the cache[)]; conn"):
        timm_network("resnet18", 2, "pretrained", {})
    assert time.monotonic() - begun < 5
    assert (requests, constants.HF_HUB_OFFLINE) == ([True], False)


def test_online_the_hub_is_asked(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "getproxies", dict)
        with hub.hub_or_cache() as online:
            assert (online, constants.HF_HUB_OFFLINE) == (True, False)


def test_architecture_in_any_case():
    kinds = [type(smp_network(name, "resnet18", 2, "none", {})) for name in ("FPN", "fpn")]
    assert kinds[0] is kinds[1]
