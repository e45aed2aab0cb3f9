"""A client of the lab made of the real libpurple, without a screen: `python -m tests.lab.libpurple`.

It is driven by ctypes: no headers and no compiler are needed. It signs on, accepts every file, and prints
what happens, a line each. A line of standard input with a name and a path offers a file.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_uint, c_ulong, c_void_p
from typing import Any, Final

_UI: Final = b"lab"
_READ, _WRITE = 1, 2  # of PurpleInputCondition
_IN, _OUT, _ERR, _HUP, _NVAL = 1, 4, 8, 16, 32  # of GIOCondition
# What libpurple is handed must outlive the call: functions, structures.
_kept: list[Any] = []


def _library(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)  # plug-ins look for its symbols


_glib, _purple = _library("libglib-2.0.so.0"), _library("libpurple.so.0")


def _call(name: str, result: Any, *arguments: tuple[Any, Any]) -> Any:
    """Call a function of either library; each argument with its type."""
    function = getattr(_glib if name.startswith("g_") else _purple, name)
    function.restype, function.argtypes = result, [kind for kind, _ in arguments]
    return function(*(value for _, value in arguments))


def _function(made: Callable[..., Any], result: Any, *arguments: Any) -> Any:
    """A function that libpurple can call."""
    wrapped = ctypes.CFUNCTYPE(result, *arguments)(made)
    _kept.append(wrapped)
    return wrapped


def _timeout(milliseconds: int, function: int, data: int | None) -> int:
    arguments = (c_uint, milliseconds), (c_void_p, function), (c_void_p, data)
    return int(_call("g_timeout_add", c_uint, *arguments))


def _remove(source: int) -> int:
    return int(_call("g_source_remove", c_int, (c_uint, source)))


def _input(descriptor: int, condition: int, function: int, data: int | None) -> int:
    told = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_int)(function)

    def ready(_channel: int, found: int, _data: int) -> int:
        reads = _READ if found & (_IN | _HUP | _ERR) else 0
        told(data, descriptor, reads | (_WRITE if found & (_OUT | _HUP | _ERR) else 0))
        return 1

    watched = (_IN | _HUP | _ERR) * bool(condition & _READ)
    watched |= (_OUT | _HUP | _ERR | _NVAL) * bool(condition & _WRITE)
    channel = _call("g_io_channel_unix_new", c_void_p, (c_int, descriptor))
    callback = ctypes.cast(_function(ready, c_int, c_void_p, c_int, c_void_p), c_void_p)
    arguments = (c_void_p, channel), (c_int, watched), (c_void_p, callback), (c_void_p, None)
    source = int(_call("g_io_add_watch", c_uint, *arguments))
    _call("g_io_channel_unref", None, (c_void_p, channel))
    return source


def _start(folder: str) -> None:
    """The library on GLib's event loop (PurpleEventLoopUiOps), with its state in *folder*."""
    timeout = _function(_timeout, c_uint, c_uint, c_void_p, c_void_p)
    remove = _function(_remove, c_int, c_uint)
    watch = _function(_input, c_uint, c_int, c_int, c_void_p, c_void_p)

    def seconds(number: int, function: int, data: int | None) -> int:
        return _timeout(1000 * number, function, data)

    later = _function(seconds, c_uint, c_uint, c_void_p, c_void_p)
    functions = [timeout, remove, watch, remove, None, later, None, None, None]
    table = (c_void_p * len(functions))(*(ctypes.cast(one, c_void_p) if one else None for one in functions))
    _kept.append(table)
    _call("purple_util_set_user_dir", None, (c_char_p, folder.encode()))
    _call("purple_eventloop_set_ui_ops", None, (c_void_p, ctypes.addressof(table)))
    if not _call("purple_core_init", c_int, (c_char_p, _UI)):
        raise SystemExit("libpurple does not start")
    _call("purple_set_blist", None, (c_void_p, _call("purple_blist_new", c_void_p)))


def _on(place: str, signal: str, result: Any, told: Callable[..., Any], *arguments: Any) -> None:
    instance = _call(f"purple_{place}_get_handle", c_void_p)
    callback = ctypes.cast(_function(told, result, *arguments, c_void_p), c_void_p)
    of = (c_void_p, instance), (c_char_p, signal.encode()), (c_void_p, id(_kept))
    _call("purple_signal_connect", c_ulong, *of, (c_void_p, callback), (c_void_p, None))


def _say(text: str) -> None:
    print(text, flush=True)


def _account(user: str, server: str, password: str) -> int:
    """An account of prpl-jabber, *user* with its resource, that goes to *server* in clear text."""
    kinds = (c_char_p, user.encode()), (c_char_p, b"prpl-jabber")
    account = int(_call("purple_account_new", c_void_p, *kinds))
    own = (c_void_p, account)
    _call("purple_account_set_password", None, own, (c_char_p, password.encode()))
    for key, value in (
        ("connection_security", "opportunistic_tls"),
        ("connect_server", server),
        ("ft_proxies", ""),
    ):
        pair = (c_char_p, key.encode()), (c_char_p, value.encode())
        _call("purple_account_set_string", None, own, *pair)
    _call("purple_account_set_bool", None, own, (c_char_p, b"auth_plain_in_clear"), (c_int, 1))
    _call("purple_accounts_add", None, own)
    return account


def _offered(transfer: int, folder: str) -> None:
    """Accept a file, as soon as libpurple is done with telling of it."""
    name = _call("purple_xfer_get_filename", c_char_p, (c_void_p, transfer))
    path = os.path.join(folder, os.path.basename(name.decode())).encode()

    def accept(_data: int) -> int:
        _call("purple_xfer_request_accepted", None, (c_void_p, transfer), (c_char_p, path))
        return 0

    _timeout(1, ctypes.cast(_function(accept, c_int, c_void_p), c_void_p).value or 0, None)


def _name(buddy: int) -> str:
    name: bytes = _call("purple_buddy_get_name", c_char_p, (c_void_p, buddy))
    return name.decode().partition("@")[0]


def _command(account: int, domain: str) -> None:
    """One line of standard input."""
    words = sys.stdin.readline().split()
    own = (c_void_p, account)
    if not words:
        os._exit(0)
    name, path = words
    connection = (c_void_p, _call("purple_account_get_connection", c_void_p, own))
    file = (c_char_p, f"{name}@{domain}/pc".encode()), (c_char_p, path.encode())
    _call("serv_send_file", None, connection, *file)


def main(user: str, domain: str, server: str, password: str, folder: str) -> None:
    """Run until standard input ends."""
    _start(folder)
    account = _account(f"{user}@{domain}/pc", server, password)
    _on("connections", "signed-on", None, lambda *_: _say("signed on"), c_void_p)
    _on("xfers", "file-recv-request", None, lambda transfer, _: _offered(transfer, folder), c_void_p)
    for event in ("file-recv-complete", "file-recv-cancel", "file-send-cancel"):
        _on("xfers", event, None, lambda *_, event=event: _say(event), c_void_p)
    _on("blist", "buddy-signed-on", None, lambda buddy, _: _say(f"sees {_name(buddy)}"), c_void_p)
    arguments = (c_void_p, account), (c_char_p, _UI), (c_int, 1)
    _call("purple_account_set_enabled", None, *arguments)
    told = _function(lambda *_: _command(account, domain), None, c_void_p, c_int, c_int)
    _input(0, _READ, ctypes.cast(told, c_void_p).value or 0, None)
    loop = _call("g_main_loop_new", c_void_p, (c_void_p, None), (c_int, 0))
    _call("g_main_loop_run", None, (c_void_p, loop))


if __name__ == "__main__":
    main(*sys.argv[1:6])
