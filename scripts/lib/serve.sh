# shellcheck shell=bash
# A served copy of a demo archive, for checks that ask it and write to it. Sourced after common.sh.

LOGS=$LOCAL/test

# serve_and SET FUNCTION: serves a copy of that demo set's archive on a free port and calls
# FUNCTION address folder-under-.local/demo process-id. Runs in a shell of its own: the server ends with it.
serve_and() {
    local folder port server status=0
    mkdir -p "$LOGS"
    [ -d .local/demo ] || fail "there is no demo archive yet: scripts/demo --synthetic --no-serve"
    folder=$(find .local/demo -path ".local/demo/$1/efficientnet_lite0" -print -quit)
    [ -d "$folder/archive" ] || fail "there is no demo archive of $1 yet: run scripts/demo with --no-serve"
    port=$(free_port)
    rm -rf "$folder/served" "$folder/served.secret"
    cp -r "$folder/archive" "$folder/served" # tests write to it
    cp "$folder/archive.secret" "$folder/served.secret"
    "$MEDSEARCH" serve --archive "$folder/served" --model models/efficientnet_lite0 --listen "127.0.0.1:$port" >"$LOGS/serve-$2.log" 2>&1 &
    server=$!
    # shellcheck disable=SC2064 # this very process
    trap "kill $server 2>/dev/null || true" EXIT
    for _ in $(seq 150); do
        "$PYTHON_VENV" -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=2)' "http://127.0.0.1:$port/readyz" 2>/dev/null && break
        kill -0 "$server" 2>/dev/null || break
        sleep 0.2
    done
    kill -0 "$server" 2>/dev/null || {
        say "the server did not start:"
        tail -n 20 "$LOGS/serve-$2.log"
        return 1
    }
    "$2" "http://127.0.0.1:$port" "$folder" "$server" || status=$?
    kill "$server"
    wait "$server" || {
        say "the server did not stop cleanly: status $?"
        tail -n 20 "$LOGS/serve-$2.log"
        return 1
    }
    return "$status"
}


free_port() { "$PYTHON_VENV" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
