"""The runner and the leak gate are in tests/sandboxes.py."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
pytest.register_assert_rewrite("sandboxes")
from sandboxes import *  # noqa: E402,F403
from sandboxes import HYBRID, TEST_BUILD  # noqa: E402

collect_ignore = ["test_faults.py"] * (not TEST_BUILD) + ["test_cgroup2.py"] * HYBRID
