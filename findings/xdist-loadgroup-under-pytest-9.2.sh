#!/usr/bin/env bash
# pytest-xdist 3.8.0 under pytest 9.2.0: `--dist loadgroup` ignores `xdist_group`, and says nothing.
#
# Behaviour: twelve tests that share one mark xdist_group("one") are spread over both workers; under
# pytest 8.4.2 the same tests all run in one worker, as the documentation of xdist says.  Why: xdist
# writes the group into the attribute `_nodeid` of each item, and pytest 9.2 reads another one.
# What it costs: module fixtures are made once per worker, and tests that rely on an earlier test of
# their module fail now and then.  `--dist loadfile` is not concerned.
#
# Seen: 1 worker under pytest 8.4.2, 2 workers under pytest 9.2.0.  Fails if that changes.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cat >"$work/test_group.py" <<'PY'
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(12))
def test_one(number):
    time.sleep(0.05)
PY
workers() {
    python3 -m venv "$work/$1"
    "$work/$1/bin/python" -m pip install --quiet "pytest==$1" pytest-xdist==3.8.0
    "$work/$1/bin/python" -m pytest -p no:cacheprovider -n 2 --dist loadgroup -v "$work/test_group.py" \
        | grep -oE '^\[gw[01]\]' | sort -u | wc -l
}
old="$(workers 8.4.2)"
new="$(workers 9.2.0)"
echo "workers that ran the group: $old under pytest 8.4.2, $new under pytest 9.2.0"
((old == 1 && new == 2))
