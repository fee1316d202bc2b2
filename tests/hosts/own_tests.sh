#!/bin/sh
# The hosts' own tests of this backend, from their source distributions, with the package installed and no patch called.
#   own_tests.sh VENV WORK
set -eu
venv=$1
work=$2/sources
mkdir -p "$work"
for host in pylate==1.6.0 colpali-engine==0.3.18; do
    name=$(echo "$host" | sed 's/==/-/; s/colpali-engine/colpali_engine/')
    [ -d "$work/$name" ] || {
        "$venv/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$work" "$host"
        tar -xzf "$work/$name.tar.gz" -C "$work"
    }
done
cd "$work"
# Only the tests that need no accelerator and no download; the sources beside them must not shadow the installed packages.
"$venv/bin/python" -m pytest -q -p no:cacheprovider --import-mode=importlib -o testpaths= -c /dev/null --rootdir "$work" \
    pylate-1.6.0/tests/test_scores_lik.py pylate-1.6.0/tests/test_colbert_scores.py \
    colpali_engine-0.3.18/tests/loss/test_li_losses.py colpali_engine-0.3.18/tests/utils/test_maxsim.py
