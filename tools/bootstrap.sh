#!/bin/sh
# Make or refresh .venv: the project, its development tools and the CPU build of torch.
#
#   sh tools/bootstrap.sh          (every make target runs it; nothing to do costs milliseconds)
#   sh tools/bootstrap.sh lenient  (for lint and docs: an environment that works will do, even if
#                                  pyproject.toml has changed since: no network is asked)
#
# PYTHON           the interpreter to build with; without it, the first of python3, python3.13,
#                  python3.12, python3.11, python3.14 that is new enough
# VENV             where the environment goes (.venv)
# TORCH_CPU_INDEX  where the CPU build of torch comes from, if it has to be asked for
#
# How an interruption at any point is survived: `begun` is written before anything else, the
# stamp after everything else. No stamp beside `begun` means half made: built anew from nothing.
# A stamp of other inputs means out of date: removed, refreshed in place, written again.
#
# Both name the checkout they were written for. An environment that another checkout made is never
# touched, finished or not. One in this checkout, whose maker is no longer there, was moved along
# with it and is built anew.
set -eu

cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
root=$(pwd -P)
begun=$VENV/bootstrap.begun
stamp=$VENV/bootstrap.stamp
log=$VENV/bootstrap.log

# What decides what is installed: the project's metadata (its tables for tools do not, so that
# a change of ruff's rules needs no installation), the constraints, and this script.
inputs=$({ awk '/^\[/ { kept = !/^\[tool\./ || /^\[tool\.hatch/ } kept' pyproject.toml &&
    cat constraints-cpu.txt tools/bootstrap.sh; } | cksum)

fail() {
    echo "bootstrap: $1" >&2
    exit 1
}

# Sets state to: absent, foreign, another's, broken (rebuild), stale (refresh) or ready.
inspect() {
    if [ ! -e "$VENV" ]; then state=absent; return; fi
    if [ ! -f "$begun" ]; then state=foreign; return; fi
    maker=$(head -n 1 "$begun")
    # An older script wrote no name there, but into the stamp.
    [ -n "$maker" ] || maker=$(sed -n 2p "$stamp" 2>/dev/null || true)
    if [ -z "$maker" ]; then state=foreign; return; fi
    if [ "$maker" != "$root" ] && ! moved_along; then state=another\'s; return; fi
    state=broken
    [ -f "$stamp" ] || return 0
    had_inputs='' had_root='' had_python=''
    { read -r had_inputs; read -r had_root; read -r had_python; } <"$stamp" || return 0
    # A moved checkout or another interpreter needs a new environment, not a refresh.
    [ "$had_root" = "$root" ] || return 0
    [ -z "${PYTHON:-}" ] || [ "$had_python" = "$PYTHON" ] || return 0
    "$VENV/bin/python" -c 'import promptlimits' >/dev/null 2>&1 || return 0
    state=stale
    [ "$had_inputs" != "$inputs" ] || state=ready
}

# Did the environment come along when this checkout was moved here?
moved_along() {
    [ ! -e "$maker" ] || return 1
    case $(cd "$VENV" && pwd -P) in "$root"/*) ;; *) return 1 ;; esac
}

refuse_others() {
    [ "$state" != foreign ] ||
        fail "$VENV must be made by this script, got one that was not; move it away or set VENV=other"
    [ "$state" != another\'s ] ||
        fail "$VENV must be made by this checkout, got one that $maker made; move it away or set VENV=other"
}

inspect
[ "$state" != ready ] || exit 0
refuse_others
if [ "$state" = stale ] && [ "${1:-}" = lenient ]; then
    echo "bootstrap: $VENV is older than what it is made from; make bootstrap refreshes it" >&2
    exit 0
fi

# One bootstrap at a time: `make bracket` and `make test` may be started side by side.
lock=$VENV.lock
give_back() {
    rm -f "$lock/pid"
    rmdir "$lock" 2>/dev/null || true
}
nameless=0
said=''
until mkdir "$lock" 2>/dev/null; do
    owner=$(cat "$lock/pid" 2>/dev/null || true)
    [ -n "$owner" ] || nameless=$((nameless + 1))
    if [ "$nameless" -gt 5 ] || { [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; }; then
        give_back # its owner was killed
        [ ! -e "$lock" ] || fail "$lock must be a lock, got a folder of another making; move it away"
        nameless=0
        continue
    fi
    [ -n "$said" ] || echo "bootstrap: waiting for another one (process $owner; lock $lock)" >&2
    said=yes
    sleep 1
done
trap give_back EXIT
trap 'echo "bootstrap: interrupted; the same command starts it again" >&2; exit 130' INT
trap 'exit 143' HUP TERM
echo $$ >"$lock/pid"

inspect
[ "$state" != ready ] || exit 0
refuse_others

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null 2>&1 ||
            fail "PYTHON must name an interpreter, got $PYTHON, which is not found"
        new_enough "$PYTHON" ||
            fail "PYTHON must be Python 3.11 or newer, got $("$PYTHON" --version 2>&1 | head -n 1)"
        python=$PYTHON
        return
    fi
    for python in python3 python3.13 python3.12 python3.11 python3.14; do
        if new_enough "$python"; then return; fi
    done
    fail "Python must be 3.11 or newer, got $(python3 --version 2>&1 | head -n 1); \
install one, or name it: make test PYTHON=/path/to/python3.12"
}

# stage "what it does" command...: one line with its seconds, or the end of the log.
stage() {
    what=$1
    shift
    start=$(date +%s)
    echo "--- $what" >>"$log"
    if "$@" >>"$log" 2>&1; then
        echo "bootstrap: $what, $(($(date +%s) - start)) s"
    else
        tail -n 15 "$log" >&2
        fail "failed: $what; the whole log is $log, and the same command starts it again"
    fi
}

pip() {
    "$VENV/bin/python" -m pip --disable-pip-version-check --no-input --quiet "$@"
}

# Would torch bring CUDA packages? On Linux, whatever registry pip is set up for decides.
would_bring_cuda() {
    [ "$(uname -s)" = Linux ] || return 1
    pip install --dry-run --no-deps --report - --constraint constraints-cpu.txt torch \
        >"$VENV/torch-report.json" 2>>"$log" ||
        { tail -n 15 "$log" >&2; fail "pip found no torch to install; the whole log is $log"; }
    grep -Eq '"(nvidia|cuda)-' "$VENV/torch-report.json"
}

whole_start=$(date +%s)
unset PYTHONPATH PYTHONHOME
if [ "$state" = stale ]; then
    python=$had_python
    rm -f "$stamp"
else
    find_python
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        fail "$python must have the venv module, got none; on Debian and Ubuntu: apt install python3-venv"
    rm -rf "$VENV"
    mkdir -p "$VENV"
    printf '%s\n' "$root" >"$begun"
    stage "$VENV with $("$python" --version)" "$python" -m venv "$VENV"
    # An older pip would download all of a CUDA build only to say what it needs.
    stage "pip" pip install --constraint constraints-cpu.txt pip
fi

if would_bring_cuda; then
    index=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}
    stage "torch without CUDA, from $index" pip install --no-deps --index-url "$index" \
        --constraint constraints-cpu.txt torch
fi
stage "promptlimits and what it needs" pip install --constraint constraints-cpu.txt \
    --editable '.[dev]'

# torch/version.py says what was built, without the seconds that importing torch takes.
cuda=$("$VENV/bin/python" - <<'PYTHON_CODE'
import importlib.util
import pathlib
import runpy

torch = pathlib.Path(importlib.util.find_spec("torch").origin)
print(runpy.run_path(str(torch.with_name("version.py")))["cuda"] or "")
PYTHON_CODE
)
[ -z "$cuda" ] ||
    echo "bootstrap: torch is a CUDA $cuda build: it works, and takes several GB of disk" >&2

printf '%s\n' "$inputs" "$root" "$python" >"$stamp.new"
mv "$stamp.new" "$stamp"
echo "bootstrap: ready, $(($(date +%s) - whole_start)) s in all"
