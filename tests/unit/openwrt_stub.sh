# Stand-in for OpenWrt's rc.common, /lib/functions.sh and procd.sh, as far as the init script of nfreaim uses them. What
# procd would be told goes to $ROOT/procd, one line for each call.
#
#   sh openwrt_stub.sh INITSCRIPT COMMAND

initscript=$1
action=$2


procd() { echo "$*" >>"$ROOT/procd"; }

procd_open_instance() { procd instance; }
procd_close_instance() { procd instance closed; }
procd_set_param() {
    procd "$@"
    if [ "$1" = command ]; then
        # The daemon: a process of its own, whose number procd writes down.
        sleep 300 >/dev/null 2>&1 &
        echo $! >"$ROOT/var/run/nfreaim.pid"
    fi
}
procd_add_reload_trigger() { procd trigger config "$1"; }
procd_add_reload_interface_trigger() { procd trigger interface "$1"; }
procd_running() { [ -s "$ROOT/var/run/nfreaim.pid" ] && kill -0 "$(cat "$ROOT/var/run/nfreaim.pid")" 2>/dev/null; }

# procd answers at once, and the daemon ends a second later.
procd_kill() {
    procd kill "$1"
    if [ -s "$ROOT/var/run/nfreaim.pid" ]; then
        ended=$(cat "$ROOT/var/run/nfreaim.pid")
        rm -f "$ROOT/var/run/nfreaim.pid"
        (sleep 0.3; kill "$ended"; echo "daemon ended" >>"$ROOT/procd") >/dev/null 2>&1 &
    fi
}

config_load() { config=$ROOT/etc/config/$1; }
values_of() {
    awk -v name="$1" -v kind="$2" -v key="$3" '
        $1 == "config" { here = ($3 == "\047" name "\047") }
        here && $1 == kind && $2 == key { gsub("\047", "", $3); print $3 }' "$config"
}
config_get_bool() {
    # shellcheck disable=SC2034  # read by eval
    found=$(values_of "$2" option "$3")
    eval "$1=\${found:-$4}"
}
config_list_foreach() {
    section=$1 option=$2 function=$3
    shift 3
    for one in $(values_of "$section" list "$option"); do "$function" "$one" "$@"; done
}

start() {
    procd open
    start_service
    service_triggers
    procd set
}
stop() {
    stop_service
    procd_kill nfreaim
    service_stopped
}
restart() { stop; start; }
reload() { reload_service; }

. "$initscript"
"$action"
