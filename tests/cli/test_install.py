"""make install: a tree that works from wherever it is put, and goes away whole."""
import os
import shutil
import subprocess

import pytest

from conftest import BUILD, ROOT


def make(*words):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    r = subprocess.run(["make", "-s", "-C", ROOT, f"B={BUILD}", *words], capture_output=True,
                       text=True, check=False, env=env, timeout=600)
    assert r.returncode == 0, r.stdout + r.stderr


def files(directory):
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if not p.is_dir()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    dest = tmp_path_factory.mktemp("dest")
    make(f"DESTDIR={dest}", "PREFIX=/opt/x", "install")
    return dest


def test_what_is_installed(tree):
    found = files(tree / "opt/x")
    for name in ("bin/pratai", "sbin/pratai-control", "sbin/pratai-node",
                 "lib/pratai/pratai-client", "lib/pratai/pratai-control",
                 "lib/pratai/pratai-node", "lib/pratai/pratai-unpack",
                 "lib/pratai/pratai-seccomp", "share/man/man5/pratai-seccomp.5",
                 "share/man/man5/pratai-image.5", "share/man/man5/pratai-recipe.5",
                 "lib/pratai/pratai-build", "share/pratai/recipes/seed.json", "share/pratai/recipes/debian.sh",
                 "lib/pratai/runtimes/python3/runtime.json",
                 "lib/pratai/runtimes/exec/layer/opt/pratai/exec/serve", "share/man/man1/pratai.1",
                 "share/man/man1/pratai-run.1", "share/man/man5/pratai.conf.5", "share/man/man7/pratai-security.7",
                 "share/man/man8/pratai-control.8", "share/man/man8/pratai-node.8",
                 "share/doc/pratai/README.md", "share/doc/pratai/LICENSE",
                 "share/bash-completion/completions/pratai", "lib/systemd/system/pratai.service"):
        assert name in found
    unit = (tree / "opt/x/lib/systemd/system/pratai.service").read_text()
    assert "ExecStart=/opt/x/bin/pratai up" in unit and "@" not in unit
    for path in (tree / "opt/x").rglob("*"):
        assert path.is_symlink() or not path.stat().st_mode & 0o022, path


def test_commands_of_the_client_and_of_run(tree):
    pratai = tree / "opt/x/bin/pratai"
    version = subprocess.run([pratai, "version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("pratai ")
    ran = subprocess.run([pratai, "run", "--", "/bin/echo", "in a sandbox"], capture_output=True,
                         text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "in a sandbox\n"), ran.stderr
    text = subprocess.run([pratai, "help", "run"], capture_output=True, text=True, check=True)
    assert "--timeout" in text.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="up needs root")
def test_the_main_job_from_a_moved_tree(tree, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(tree / "opt/x", moved, symlinks=True)
    r = subprocess.run(["sh", ROOT / "packaging/demo.sh"], capture_output=True, text=True,
                       check=False, timeout=180,
                       env={"PATH": os.environ["PATH"], "PRATAI": str(moved / "bin/pratai")})
    assert r.returncode == 0, r.stdout + r.stderr
    assert "nothing is left" in r.stdout


def test_uninstall_leaves_nothing(tmp_path):
    make(f"DESTDIR={tmp_path}", "install")
    other = tmp_path / "usr/local/bin/other"
    other.write_text("not ours")
    make(f"DESTDIR={tmp_path}", "uninstall")
    assert files(tmp_path) == {"usr/local/bin/other"}
