"""The runner and the leak gate are those of tests/sandbox, in tests/sandboxes.py."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
pytest.register_assert_rewrite("sandboxes")
from sandboxes import *  # noqa: E402,F403
from sandboxes import become_ordinary  # noqa: E402


@pytest.fixture(params=["root", "user"])
def who(request, run):
    if request.param == "user":
        become_ordinary(run)
    return request.param
