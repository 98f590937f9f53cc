# What the examples over a database of their own have in common. `run` of each of them
# names a $port and the one after it, sources this file, and has then:
#
#   serve CONFIG VARIABLE [NAME=VALUE...]   starts Larder over $database, whose URL this
#       variable of its environment names, with these others
#   rest                    waits until Ctrl-C
#   ask WORD...             a command of the Redis protocol
#   sql TEXT                a statement, beside Larder
#   metric NAME, loads CACHE, expect WHAT FOUND WANTED, fail MESSAGE, now_ms
#
# LARDER_BIN names a binary to use instead of building one. Everything that is started
# is stopped by its process id, and what it wrote is removed.
set -euo pipefail

for tool in sqlite3 redis-cli curl; do
    command -v "$tool" >/dev/null || {
        echo "$tool is needed: apt-get install sqlite3 redis-tools curl" >&2
        exit 1
    }
done
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
larder=${LARDER_BIN:-}
if [[ -z $larder ]]; then
    cargo build --quiet --release --manifest-path "$examples/../Cargo.toml" --bin larder
    larder=$(cargo metadata --format-version 1 --no-deps \
        --manifest-path "$examples/../Cargo.toml" |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/larder
fi

home=$(mktemp -d)
database=$home/example.db
started=()
stop() {
    # That one of them has ended already is no failure.
    for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
    wait || true
    rm -rf "$home"
}
trap stop EXIT
trap 'exit 130' INT TERM

serve() {
    local config=$1 variable=$2
    shift 2
    env "$variable=sqlite:$database" "$@" "$larder" serve --config "$config" --port "$port" \
        --admin-bind "127.0.0.1:$((port + 1))" >"$home/server.log" 2>&1 &
    server=$!
    started+=("$server")
    admin=http://127.0.0.1:$((port + 1))
    for _ in $(seq 100); do
        curl -sf "$admin/readyz" >/dev/null && return
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat "$home/server.log" >&2
    fail 'the server does not start'
}

rest() {
    wait "$server"
    exit
}

ask() {
    redis-cli -p "$port" "$@"
}

sql() {
    sqlite3 -cmd '.timeout 5000' "$database" "$1"
}

metric() {
    curl -sf "$admin/metrics" | sed -n "s/^$1 //p"
}

# How often the database was asked for entries of a cache.
loads() {
    local loads
    loads=$(metric "larder_cache_loads_total{cache=\"$1\"}")
    echo "${loads%.*}"
}

expect() {
    [[ $2 == "$3" ]] || fail "$1: it is"$'\n'"$2"$'\n'"and should be"$'\n'"$3"
}

fail() {
    echo "$1" >&2
    exit 1
}

now_ms() {
    echo $((${EPOCHREALTIME/[.,]/} / 1000))
}
