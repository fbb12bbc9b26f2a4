# The first instructions of every python3 event: load runner.py and let it serve the
# channel on descriptor 3 (pratai-runtime(7)).
#
# Python compiles the script that it is given at every start and keeps no .pyc of it, so
# the script is this small and the work is in a module, which the loader takes from
# __pycache__ when the interpreter's version has one there and compiles otherwise.
#
# Started as `python3 -I -S -B -X utf8 bootstrap.py [ROOT]`: no site module (half of an
# interpreter's start), nothing of PYTHON*, no .pyc written, UTF-8 whatever LANG says.
# ROOT stands before /function and /opt/deps; tests use it.
import sys
from _frozen_importlib import _load
from _frozen_importlib_external import SourceFileLoader, spec_from_file_location

if __name__ == "__main__":
    _path = __file__.rpartition("/")[0] + "/runner.py"
    _name = "pratai_runner"
    _load(spec_from_file_location(_name, _path, loader=SourceFileLoader(_name, _path))).serve(
        3, sys.argv[1] if len(sys.argv) > 1 else "")
