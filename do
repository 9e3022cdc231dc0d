#!/bin/sh
# Sets up what this machine lacks, and says so before it does; then runs the demo, the tests or the checks.
set -eu

usage() {
    cat <<'END'
usage: ./do demo              signed messages arrive in an inbox here and in one behind a real sshd (throw-away key)
       ./do test [ARGUMENT…]  the whole test suite, or what pytest's arguments select (paths from this folder)
       ./do check             lint, format, types
       ./do faults            the whole fault suite, and what it counted into docs/reference/reliability.md
       ./do docs [FOLDER]     the documentation as a site, into site/ or FOLDER; every link has to hold
       ./do bench [ARGUMENT…] cas beside its peers, and docs/reference/performance.md (--quick; --only SCENARIO; --rounds N)
       ./do scale [ARGUMENT…] many hosts by threads and by Dask, and docs/reference/scale.md (--quick; --only PART; --hosts N)
       ./do help              these lines

What is missing is named and installed first: Debian packages by apt-get (as root, or where sudo asks nothing),
Python packages, pinned by constraints.txt, into .venv. A repeat skips that.
END
}

main() {
    cd -P -- "$(dirname -- "$0")"
    # sshd lies where only root's PATH looks.
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    choose_venv
    task=${1:-help}
    [ $# -eq 0 ] || shift
    case $task in
        demo) no_more "$@"; set_up test for-demo; exec "$venv/bin/python" -m cas demo ;;
        test) set_up test for-tests; run_tests "$@" ;;
        check) no_more "$@"; set_up check; run_checks ;;
        faults) set_up test for-tests; run_faults "$@" ;;
        docs) set_up test; set_up_beside docs docs/requirements.txt; build_docs "$@" ;;
        bench) set_up test for-tests; set_up_beside bench tests/benchmarks/requirements.txt; run_bench "$@" ;;
        scale) set_up test for-tests; run_scale "$@" ;;
        help | -h | --help) usage ;;
        *) usage >&2; exit 64 ;;
    esac
}

no_more() {
    [ $# -eq 0 ] || { usage >&2; exit 64; }
}

run_tests() {
    [ $# -gt 0 ] || set -- --numprocesses auto --maxprocesses 8 --cov=cas --cov-report=term-missing:skip-covered
    [ -w . ] || set -- -p no:cacheprovider "$@"
    COVERAGE_FILE=$(mktemp)
    export COVERAGE_FILE
    trap 'rm -f "$COVERAGE_FILE"*' EXIT
    "$venv/bin/python" -m pytest "$@"
}

# All points of the fault suite, and what it counted.
run_faults() {
    report=$(mktemp)
    trap 'rm -f "$report"' EXIT
    CAS_FAULTS=all CAS_FAULTS_REPORT=$report "$venv/bin/python" -m pytest tests/faults --timeout 3600 \
        --numprocesses auto --maxprocesses 8 "$@"
    "$venv/bin/python" tests/faults/reliability.py "$report"
}

# set_up_beside NAME REQUIREMENTS: what cas is measured beside, or documented with, has a Python environment of its own.
set_up_beside() {
    beside=$venv-$1
    wanted=$(cksum <"$2")
    if [ ! -f "$beside/stamp" ] || [ "$(cat "$beside/stamp")" != "$wanted" ]; then
        echo "installing what $2 pins into $beside" >&2
        "$venv/bin/python" -m venv --clear "$beside"
        "$beside/bin/python" -m pip install --quiet --disable-pip-version-check -r "$2" >&2
        echo "$wanted" >"$beside/stamp"
    fi
}

build_docs() {
    [ $# -le 1 ] || { usage >&2; exit 64; }
    "$beside/bin/python" docs/build.py "${1:-site}"
    echo "see ${1:-site}/index.html" >&2
}

run_bench() {
    CAS_BENCH_PYTHON=$beside/bin/python PYTHONPATH=tests "$venv/bin/python" -m benchmarks.bench "$@"
}

run_scale() {
    PYTHONPATH=tests "$venv/bin/python" -m benchmarks.scale "$@"
}

run_checks() {
    status=0
    "$venv/bin/python" -m ruff check . || status=1
    "$venv/bin/python" -m ruff format --check . || status=1
    "$venv/bin/python" -m mypy || status=1
    exit $status
}

# set_up test|check [for-demo|for-tests]
set_up() {
    missing=
    if [ $# -gt 1 ]; then
        need gpg gnupg
        need gpgconf gnupg
        need ssh openssh-client
        need ssh-keygen openssh-client
        need sshd openssh-server
    fi
    if [ "${2:-}" = for-tests ]; then
        need rsync rsync
        need strace strace
    fi
    if ! ready "$1"; then
        python=$(find_python)
        "$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
    fi
    [ -z "$missing" ] || install_programs
    ready "$1" || install_python_packages "$1"
}

# need PROGRAM PACKAGE
need() {
    command -v "$1" >/dev/null 2>&1 && return
    case " $missing " in *" $2 "*) ;; *) missing="$missing $2" ;; esac
}

choose_venv() {
    venv=$PWD/.venv
    # In a tree that we may not write: the one that is there, if it is ready; else one of our own.
    [ -w . ] || ready test || venv=${XDG_CACHE_HOME:-$HOME/.cache}/cas-venv-$(pwd | cksum | cut -d' ' -f1)
}

ready() {
    [ -f "$venv/stamp-$1" ] && [ "$(cat "$venv/stamp-$1")" = "$(wanted)" ]
}

# What the content of the venv depends on. Its scripts and its link to this tree hold the path.
wanted() {
    { cat pyproject.toml constraints.txt; pwd; "$venv/bin/python" -V; } 2>&1 | cksum
}

find_python() {
    for python in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    fail "no Python 3.11 or later found (looked for ${PYTHON:-python3}, python3.14 … python3.11)" \
        "on Debian 12: apt-get install python3 python3-venv; elsewhere: PYTHON=/path/to/python3.12 ./do …"
}

install_programs() {
    echo "missing here:$missing" >&2
    command -v apt-get >/dev/null 2>&1 ||
        fail "no apt-get on this machine" "install what these Debian packages hold:$missing"
    if [ "$(id -u)" -eq 0 ]; then
        sudo=
    elif sudo -n true 2>/dev/null; then
        sudo="sudo -n"
    else
        fail "not root, and no sudo without a password" \
            "as root: apt-get update && apt-get install --no-install-recommends$missing"
    fi
    echo "installing them by apt-get; no service is started or enabled" >&2
    # Lists of words, meant to be split.
    # shellcheck disable=SC2086
    $sudo sh -c "$APT" sh $missing ||
        fail "apt-get could not install$missing" "what it said stands above; it needs the network"
    hash -r
    [ -z "${python:-}" ] || "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "\`$python\` has no venv or ensurepip" "choose another: PYTHON=/usr/bin/python3 ./do …"
}

# shellcheck disable=SC2016
APT='
set -eu
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
trap "rm -f \"$log\"" EXIT
trap "exit 130" HUP INT TERM
if [ ! -e "$policy" ]; then
    # Debian starts the services that it installs, unless this file forbids it.
    trap "rm -f \"$log\" $policy" EXIT
    printf "#!/bin/sh\nexit 101\n" >"$policy"
    chmod 755 "$policy"
fi
install() {
    apt-get -y -o DPkg::Lock::Timeout=120 --no-install-recommends install "$@" >>"$log" 2>&1 </dev/null
}
# The lists of packages are fetched only where those that are here (none, or old ones) do not do.
install "$@" || { apt-get update >"$log" 2>&1 && install "$@"; } || { cat "$log" >&2; exit 1; }
# Nor at the next boot.
case " $* " in
    *" openssh-server "*) systemctl disable ssh.service ssh.socket >/dev/null 2>&1 || : ;;
esac
'

# install_python_packages test|check
install_python_packages() {
    if ! ready test; then
        echo "making $venv with $("$python" -V)" >&2
        "$python" -m venv --clear "$venv" || fail "could not make $venv"
    fi
    extras="test"
    [ "$1" = "test" ] || extras="test,$1"
    echo "installing Python packages into it, as constraints.txt pins them" >&2
    # hatchling, which builds this package, is pinned like the rest: so no build environment of its own.
    pip_install hatchling
    pip_install --no-build-isolation --editable ".[$extras]"
    for extra in test "$1"; do
        wanted >"$venv/stamp-$extra"
    done
}

pip_install() {
    # Without a cache: nothing is written into the home.
    "$venv/bin/python" -m pip --quiet --quiet --no-input --no-cache-dir --disable-pip-version-check \
        install --constraint constraints.txt "$@" ||
        fail "pip could not install the Python packages" "what it said stands above; the first set-up needs the network"
}

# fail PROBLEM [WHAT TO DO]
fail() {
    echo "do: $1" >&2
    [ $# -lt 2 ] || echo "    $2" >&2
    exit 1
}

main "$@"
