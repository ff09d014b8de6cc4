"""What all tests share: threads, the interpreter of Triton, and how many cases hypothesis tries."""

import os

from hypothesis import settings

# pytest runs a process for each core; before torch is imported, and for what the tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Triton's kernels run in its interpreter; read once, when Triton is imported, by a compiler or here
os.environ["TRITON_INTERPRET"] = "1"

# the same few cases each time where every commit waits for them; `--hypothesis-profile long` tries
# new ones, 10,000 of each
settings.register_profile("default", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("long", max_examples=10_000, deadline=None)
settings.load_profile("default")
