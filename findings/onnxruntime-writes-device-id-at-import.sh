#!/usr/bin/env bash
# onnxruntime 1.31.1 on Linux: `import onnxruntime` alone writes a device identifier into the home folder.
#
# Behaviour: telemetry is built into the wheel and on by default, on Linux too.  The import makes
# ~/.cache/Microsoft/DeveloperTools/.onnxruntime with a file `deviceid` and a database; no session is
# needed.  ORT_DISABLE_TELEMETRY=1 turns it off; it is read once, as the library is loaded, so that
# setting it after the import is too late.
#
# Seen: four files, and a thread more than with the variable, with which there is no file.  Fails if the
# files change.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet onnxruntime==1.31.1
cat >"$work/import.py" <<'PY'
import os
import sys
from pathlib import Path

import onnxruntime

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # too late
home = Path(os.environ["HOME"])
files = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
threads = len(os.listdir("/proc/self/task"))
print(f"onnxruntime {onnxruntime.__version__}, {sys.argv[1]}: {threads} threads, files: {files}")
folder = ".cache/Microsoft/DeveloperTools/.onnxruntime"
if sys.argv[1] == "by default":
    assert f"{folder}/deviceid" in files and f"{folder}/onnxruntime.db" in files
else:
    assert files == []
PY
mkdir "$work/one" "$work/other"
env -u ORT_DISABLE_TELEMETRY HOME="$work/one" "$work/venv/bin/python" "$work/import.py" "by default"
ORT_DISABLE_TELEMETRY=1 HOME="$work/other" "$work/venv/bin/python" "$work/import.py" "with the variable"
