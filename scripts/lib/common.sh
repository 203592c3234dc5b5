# shellcheck shell=bash
# Sourced by every script here: the root of the checkout, messages, numbered steps that resume.
set -Eeuo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT"
LOCAL=$ROOT/.local

say() { printf '%s\n' "$*"; }
warn() { printf 'note: %s\n' "$*" >&2; }
# One sentence that says what is wrong and what to do. Its own exit code tells the trap below that all is said.
SAID=70
fail() {
    printf 'error: %s\n' "$*" >&2
    exit "$SAID"
}
say_errors() { trap 'unexpected $? "${BASH_SOURCE[0]}" $LINENO "$BASH_COMMAND"' ERR; }
say_errors
unexpected() {
    [ "$1" = "$SAID" ] || printf 'error: %s, line %s: "%s" ended with %s\n' "${2#"$ROOT"/}" "$3" "$4" "$1" >&2
}
# Debian keeps servers where not everybody looks.
have() { PATH=$PATH:/usr/sbin command -v "$1" >/dev/null 2>&1; }
free_gb() { df -Pk . | awk 'NR == 2 {print int($4 / 1024 / 1024)}'; }
seconds() { # 75 -> 1 min 15 s
    if (($1 < 60)); then printf '%d s' "$1"; else printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); fi
}
# guarded FUNCTION: runs it in a shell of its own, where the first command that fails ends it, and leaves its exit code in
# STATUS. (As part of a condition, `if FUNCTION`, the first failure would go unnoticed.)
guarded() {
    trap - ERR
    set +e
    (
        say_errors
        set -e
        "$1"
    )
    # shellcheck disable=SC2034 # for the caller
    STATUS=$?
    set -e
    say_errors
}
# A short name for what is given: files by content, other words by themselves.
digest() {
    local item
    for item in "$@"; do
        if [ -f "$item" ]; then cat -- "$item"; else printf '%s\n' "$item"; fi
    done | sha256sum | cut -c1-16
}

# ---- steps ----
# step_add FUNCTION "what it does" "what it fetches, about how long the first time"
# FUNCTION_key, where it exists, prints what names the step's inputs; FUNCTION_there, where it exists, is true when the step's
# result is in place. A step with the key of last time whose result is in place is not run again; one with neither always is.
STEPS=()
STEP_WHAT=()
STEP_NOTE=()
step_add() {
    STEPS+=("$1")
    STEP_WHAT+=("$2")
    STEP_NOTE+=("${3:-}")
}

steps_run() {
    local i n=${#STEPS[@]} name stamp key finished began
    mkdir -p "$LOCAL/stamps"
    for ((i = 0; i < n; i++)); do
        name=${STEPS[i]}
        stamp=$LOCAL/stamps/$name
        key='' finished=''
        ! declare -F "${name}_key" >/dev/null || key=$("${name}_key")
        if [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then
            if declare -F "${name}_there" >/dev/null; then
                ! "${name}_there" || finished=yes
            elif [ -n "$key" ]; then
                finished=yes
            fi
        fi
        if [ -n "$finished" ]; then
            say "step $((i + 1)) of $n: ${STEP_WHAT[i]}: already done"
            continue
        fi
        rm -f "$stamp"
        say "step $((i + 1)) of $n: ${STEP_WHAT[i]}${STEP_NOTE[i]:+ (${STEP_NOTE[i]})}"
        began=$SECONDS
        guarded "$name"
        if ((STATUS != 0)); then
            say "stopped at step $((i + 1)) of $n; run again to go on from there" >&2
            exit "$STATUS"
        fi
        [ -z "$key" ] || printf '%s\n' "$key" >"$stamp"
        say "        $(seconds $((SECONDS - began)))"
    done
}

# ---- what may be missing on this machine ----

# need_debian COMMAND=PACKAGE…: installs Debian packages where that is possible without asking (root with apt-get),
# else names the command to run and returns 77 (skipped), which in CI is a failure.
need_debian() {
    local pair missing=() packages=()
    for pair in "$@"; do
        have "${pair%%=*}" || {
            missing+=("${pair%%=*}")
            packages+=("${pair#*=}")
        }
    done
    ((${#missing[@]})) || return 0
    if [ "$(id -u)" = 0 ] && have apt-get; then
        say "installing ${packages[*]}"
        {
            apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${packages[@]}"
        } >"$LOCAL/apt.log" 2>&1 && return 0
        tail -n 3 "$LOCAL/apt.log"
    fi
    say "missing: ${missing[*]}; on Debian: sudo apt-get install ${packages[*]}"
    [ "${CI:-}" != true ] || return 1
    return 77
}

# without_services NAME…: what need_debian installs from now on in this shell does not start these services, now or with the machine.
without_services() {
    if [ "$(id -u)" != 0 ] || [ ! -d /run/systemd/system ]; then return 0; fi
    local name missing=()
    for name in "$@"; do have "$name" || missing+=("$name.service"); done
    ((${#missing[@]})) || return 0
    systemctl mask "${missing[@]}" >/dev/null 2>&1 || return 0
    # shellcheck disable=SC2064 # these very names
    trap "{ systemctl unmask ${missing[*]}; systemctl disable ${missing[*]}; } >/dev/null 2>&1 || true" EXIT
}

# port_is_free PORT: nothing on this machine answers there.
port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# shellcheck disable=SC2034 # used by the scripts that source this
PYTHON_VENV=$ROOT/.venv/bin/python
# shellcheck disable=SC2034 # used by the scripts that source this
MEDSEARCH=$ROOT/target/release/medsearch
