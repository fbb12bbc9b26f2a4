"""Images of this machine: the built programs on real archives, made here byte by byte or by
the tools that people use.  The runner and the leak gate are in tests/sandboxes.py."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
pytest.register_assert_rewrite("sandboxes", "images")
from sandboxes import *  # noqa: E402,F403
import sandboxes  # noqa: E402
from images import Images  # noqa: E402


def pytest_configure(config):
    sandboxes.pytest_configure(config)
    config.addinivalue_line("markers", "slow: not in check-quick")


@pytest.fixture
def images(tmp, run):
    """A store of the test's own; nothing of an import may be left in it."""
    i = Images(tmp, run)
    yield i
    i.check()
