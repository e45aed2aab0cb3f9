# Where an installation is, and what can be asked of it; scripts/install and scripts/uninstall read it.
#
# From the environment (see the Makefile): PREFIX, SYSCONFDIR, UNITDIR, DESTDIR; UNITS, the names of the units.
# shellcheck shell=sh disable=SC2034  # those two use them

: "${PREFIX:=/usr/local}" "${SYSCONFDIR:=/etc}" "${UNITDIR:=$SYSCONFDIR/systemd/system}" "${DESTDIR:=}" "${UNITS:=}"
LIB=$PREFIX/lib/nfreaim CONF=$SYSCONFDIR/nfreaim SBIN=$PREFIX/sbin INITD=$SYSCONFDIR/init.d/nfreaim
PROGRAMS='nfreaim nfreaim-rules'
export NFREAIM_SETTINGS="$CONF/nfreaim.toml" # what nfreaim-rules reads

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }
misuse() { say "$@"; exit 2; }
is_root() { [ "$(id -u)" = 0 ]; }
has_systemd() { is_root && [ -d /run/systemd/system ]; }
has_openrc() { is_root && [ -e /run/openrc/softlevel ]; }

# owned FILE: whether a package has it
owned() { command -v dpkg >/dev/null 2>&1 && dpkg -S "$1" >/dev/null 2>&1; }

# The package's units, rules and users have the names of ours.
has_package() { is_root && owned /usr/sbin/nfreaim; }

# They stand in units, in shell scripts and in lists of words, where other characters have meanings.
usable_places() {
    for place in "PREFIX=$PREFIX" "SYSCONFDIR=$SYSCONFDIR" "UNITDIR=$UNITDIR"; do
        case ${place#*=} in
            [!/]* | *[!A-Za-z0-9/._+-]*)
                misuse "$place is no path from / on with letters, digits and / . _ + - alone; nothing was changed" ;;
        esac
    done
}

# need_writable WORD: what cannot be written would otherwise be said by whatever fails first.
need_writable() {
    word=$1
    set -- "$PREFIX" "$SYSCONFDIR" "$LIB" "$SBIN" "$CONF"
    if has_systemd; then set -- "$@" "$UNITDIR"; elif has_openrc; then set -- "$@" "${INITD%/*}"; fi
    for place; do
        there=$place
        while [ ! -e "$there" ]; do there=$(dirname "$there"); done
        if [ -w "$there" ]; then
            continue
        elif is_root; then
            die "$there is read-only, and nothing was changed: mount it for writing (mount -o remount,rw ...)," \
                "or name other places by PREFIX=, SYSCONFDIR= and UNITDIR="
        fi
        die "$place cannot be written to by $(id -un): run it as root (sudo make $word)," \
            "or name places of your own by PREFIX= and SYSCONFDIR="
    done
}

# users_of DIR: processes that run from there
users_of() {
    for process in /proc/[0-9]*; do
        if grep -qsF "$1/" "$process/cmdline" "$process/maps"; then echo "${process#/proc/}"; fi
    done
}

# builds: the directories of builds. One of older versions, which knew no directories of builds, is LIB itself.
builds() {
    for config in "$LIB"/*/pyvenv.cfg; do
        if [ -e "$config" ] && [ ! -L "${config%/pyvenv.cfg}" ]; then dirname "$config"; fi
    done
    if [ -e "$LIB/pyvenv.cfg" ]; then echo "$LIB/lib"; fi
}

# left_behind: process ids of daemons that run from another directory than the current one
left_behind() {
    for build in $(builds); do
        [ "$build" = "$(readlink -f "$LIB/current")" ] || users_of "$build"
    done
}

# Earlier builds that nothing runs from any more.
remove_earlier() {
    for build in $(builds); do
        if [ "$build" = "$(readlink -f "$LIB/current")" ] || [ -n "$(users_of "$build")" ]; then
            continue
        elif [ "$build" = "$LIB/lib" ]; then
            for part in bin include lib lib64 share pyvenv.cfg; do rm -rf "${LIB:?}/$part"; done
        else
            rm -rf "$build"
        fi
    done
}

usable_places
