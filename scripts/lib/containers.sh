# shellcheck shell=bash
# Replicas over one archive, each in a container of the image: on a network of their own they find each other by a name that has an address for each of
# them, as a headless Service of Kubernetes gives. Where neither podman nor docker answers they are processes of this machine, which name each other's ports.
# Sourced after common.sh and serve.sh. In this order:
#
#   replicas_as containers|processes|either   decides what they are: REPLICAS_AS is then containers or processes. With `either` and no podman or docker it
#                                             says `skipped: containers: …`; with `containers` it returns 77 after that
#   image_ready [TAG]                         the image is there; without TAG the program that scripts/setup built becomes one (containers only)
#   program_of TAG FOLDER                     puts what an image runs into FOLDER: bin/medsearch, and lib that it looks for beside it
#   network_up NAME FOLDER COUNT              room for COUNT replicas and one machine that is alone. FOLDER has what they read: `archive` with
#                                             `archive.secret` beside it, `api.key`, `inner.key`. Containers run as the image's user, who is given FOLDER:
#                                             make it for this
#   replica_start WHO ARGUMENT…               WHO is a number from 0 to COUNT-1, or `whole` for the machine that is alone; ARGUMENTs go to `medsearch serve`
#   replica_ready WHO SECONDS                 waits until it is; false when it ends before, or is not ready then
#   replica_address WHO, replica_inner WHO    prints http://HOST:PORT, as this machine reaches it
#   replica_log WHO                           prints its log
#   replica_stop WHO                          ends it as an orchestrator does, and waits
#   network_down                              ends all of them, containers without a drain, and the network. May be called at any time, more than once

# Where FOLDER is in a container.
MOUNTED=/medsearch
# As an orchestrator would wait for a drain and what is in flight.
STOP_SECONDS=30
# Threads of a container: a server has some for each processor, and for requests that wait for a disk.
PROCESSES_MAX=4096
ENGINE=() NETWORK='' FOLDER='' COUNT=0 IMAGE=''
declare -A PROCESS=() PORTS=()

# ---- what they are ----

replicas_as() { # containers|processes|either
    REPLICAS_AS=processes
    [ "$1" != processes ] || return 0
    if find_engine; then
        REPLICAS_AS=containers
        return
    fi
    say "skipped: containers: neither podman nor docker answers here (on Debian: apt-get install podman runc netavark aardvark-dns)"
    [ "$1" != containers ] || return 77
}

find_engine() {
    local engine
    for engine in podman docker; do
        have "$engine" || continue
        ENGINE=("$engine")
        # crun, which podman takes first, does not run on every machine that mixes both versions of cgroups; runc does.
        if [ "$engine" = podman ] && have runc; then ENGINE+=(--runtime "$(command -v runc)"); fi
        ! "${ENGINE[@]}" info >/dev/null 2>&1 || return 0
    done
    ENGINE=()
    return 1
}

image_ready() { # [TAG]
    local how=(--built) tag=medsearch-built
    if [ -n "${1:-}" ]; then
        IMAGE=$1
        "${ENGINE[@]}" image inspect "$1" >/dev/null 2>&1 || fail "there is no image $1 here: scripts/image $1 builds one"
        return
    fi
    # Where no registry is reached the base is made from Debian's packages.
    if [ "$(id -u)" = 0 ] && [ "${ENGINE[0]}" = podman ] && ! registry_answers; then how+=(--offline-base); fi
    scripts/image "${how[@]}" "$tag"
    IMAGE=$tag
    [ "${ENGINE[0]}" != podman ] || IMAGE=localhost/$tag
}

program_of() { # TAG FOLDER
    local container
    find_engine || fail "neither podman nor docker answers here, to take the program out of the image $1"
    # Nothing is fetched: what it runs is run here.
    "${ENGINE[@]}" image inspect "$1" >/dev/null 2>&1 || fail "there is no image $1 here"
    container=$("${ENGINE[@]}" create "$1")
    rm -rf "$2"
    mkdir -p "$2"
    "${ENGINE[@]}" cp "$container:/opt/medsearch/." "$2" || fail "the image $1 has no /opt/medsearch"
    "${ENGINE[@]}" rm "$container" >/dev/null
}

# True where the registry of the Dockerfile's bases answers within 3 seconds.
registry_answers() {
    "$PYTHON_VENV" - https://registry-1.docker.io/v2/ 2>/dev/null <<'P'
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=3)
except urllib.error.HTTPError as answer:
    # It asks who wants to know.
    sys.exit(answer.code != 401)
P
}

# ---- together ----

network_up() { # NAME FOLDER COUNT
    NETWORK=$1 FOLDER=$2 COUNT=$3
    local who
    if [ "$REPLICAS_AS" = containers ]; then
        network_down
        "${ENGINE[@]}" network create "$NETWORK" >/dev/null
        # Else they run as whoever made the folder.
        [ "$(id -u)" != 0 ] || chown -R 10001:10001 "$FOLDER"
        return
    fi
    for who in $(seq 0 $((COUNT - 1))) whole; do PORTS[$who]="$(free_port) $(free_port)"; done
}

network_down() {
    local who
    # All at once: each drains for some seconds.
    ((${#PROCESS[@]} == 0)) || kill "${PROCESS[@]}" 2>/dev/null || true
    for who in "${!PROCESS[@]}"; do replica_stop "$who"; done
    [ -n "$NETWORK" ] && ((${#ENGINE[@]})) || return 0
    for who in $(seq 0 $((COUNT - 1))) whole; do
        "${ENGINE[@]}" kill "$NETWORK-$who" >/dev/null 2>&1 || true
        "${ENGINE[@]}" rm --force "$NETWORK-$who" >/dev/null 2>&1 || true
    done
    "${ENGINE[@]}" network rm "$NETWORK" >/dev/null 2>&1 || true
}

# ---- one by one ----

replica_start() { # WHO ARGUMENT…
    local who=$1 arguments=() in=$FOLDER
    shift
    [ "$REPLICAS_AS" = processes ] || in=$MOUNTED
    arguments=(serve --archive "$in/archive" --api-key-file "$in/api.key" --drain-seconds 5)
    [ "$who" = whole ] || arguments+=(--inner-key-file "$in/inner.key" --replica "replica-$who")
    "start_as_$REPLICAS_AS" "$who" "${arguments[@]}" "$@"
}

start_as_containers() { # WHO ARGUMENT…
    local who=$1 options=()
    shift
    # Nothing to write to but the archive, and no rights.
    options=(--detach --name "$NETWORK-$who" --hostname "replica-$who" --network "$NETWORK" --read-only --tmpfs /tmp:size=64m --cap-drop ALL
        --security-opt no-new-privileges --volume "$FOLDER:$MOUNTED" --publish 127.0.0.1::8000)
    if [ "$(id -u)" != 0 ]; then
        options+=(--user "$(id -u):$(id -g)")
        [ "${ENGINE[0]}" != podman ] || options+=(--userns keep-id)
    fi
    # By itself podman asks for more open files and processes than some machines allow.
    [ "${ENGINE[0]}" != podman ] || options+=(--ulimit "nofile=$(ulimit -Hn):$(ulimit -Hn)" --ulimit "nproc=$PROCESSES_MAX:$PROCESSES_MAX")
    if [ "$who" != whole ]; then
        options+=(--network-alias medsearch --publish 127.0.0.1::8001)
        set -- "$@" --peers dns://medsearch:8001 --inner-listen 0.0.0.0:8001
    fi
    "${ENGINE[@]}" run "${options[@]}" "$IMAGE" "$@" --listen 0.0.0.0:8000 >/dev/null
}

start_as_processes() { # WHO ARGUMENT…
    local who=$1 peers='' other ports
    shift
    read -r -a ports <<<"${PORTS[$who]}"
    if [ "$who" != whole ]; then
        for ((other = 0; other < COUNT; other++)); do peers+=${peers:+,}http://127.0.0.1:${PORTS[$other]#* }; done
        set -- "$@" --peers "$peers" --inner-listen "127.0.0.1:${ports[1]}"
    fi
    "$MEDSEARCH" "$@" --listen "127.0.0.1:${ports[0]}" >"$FOLDER/$who.log" 2>&1 &
    PROCESS[$who]=$!
}

replica_address() { published "$1" 8000; }
replica_inner() { published "$1" 8001; }
published() { # WHO PORT
    if [ "$REPLICAS_AS" = containers ]; then
        printf 'http://%s\n' "$("${ENGINE[@]}" port "$NETWORK-$1" "$2/tcp" | head -n 1)"
    elif [ "$2" = 8000 ]; then
        printf 'http://127.0.0.1:%s\n' "${PORTS[$1]% *}"
    else
        printf 'http://127.0.0.1:%s\n' "${PORTS[$1]#* }"
    fi
}

replica_ready() { # WHO SECONDS
    local address end=$((SECONDS + $2))
    address=$(replica_address "$1")
    while ((SECONDS < end)); do
        ! "$PYTHON_VENV" -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=2)' "$address/readyz" 2>/dev/null || return 0
        replica_runs "$1" || return 1
        sleep 0.2
    done
    return 1
}

replica_runs() { # WHO
    if [ "$REPLICAS_AS" = containers ]; then
        [ "$("${ENGINE[@]}" inspect --format '{{.State.Running}}' "$NETWORK-$1" 2>/dev/null)" = true ]
    else
        kill -0 "${PROCESS[$1]}" 2>/dev/null
    fi
}

replica_log() { # WHO
    if [ "$REPLICAS_AS" = containers ]; then "${ENGINE[@]}" logs "$NETWORK-$1" 2>&1; else cat "$FOLDER/$1.log"; fi
}

replica_stop() { # WHO
    if [ "$REPLICAS_AS" = containers ]; then
        "${ENGINE[@]}" stop --time "$STOP_SECONDS" "$NETWORK-$1" >/dev/null
        return
    fi
    kill "${PROCESS[$1]}" 2>/dev/null || true
    wait "${PROCESS[$1]}" 2>/dev/null || true
    unset "PROCESS[$1]"
}
