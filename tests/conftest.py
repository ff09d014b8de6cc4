"""What all tests share: how many cases hypothesis tries."""

from hypothesis import settings

# the same few cases each time where every commit waits for them; `--hypothesis-profile long` tries
# new ones, 10,000 of each
settings.register_profile("default", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("long", max_examples=10_000, deadline=None)
settings.load_profile("default")
