from pathlib import Path

import psycopg

from pfstore.gallery import embedded


def test_buffers_of_an_operator_are_left_as_they_are(tmp_path: Path) -> None:
    server = embedded.start(tmp_path / "server", cleanup="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            query = (
                "SELECT setting FROM pg_file_settings WHERE name = 'shared_buffers' AND sourcefile LIKE '%auto.conf'"
            )
            [(chosen,)] = connection.execute(query.encode()).fetchall()
            assert embedded.LEAST_BUFFERS <= int(chosen.removesuffix("MB")) <= embedded.MOST_BUFFERS
            connection.execute("ALTER SYSTEM SET shared_buffers = '77MB'")
            embedded.start(tmp_path / "server", cleanup="delete")
            assert connection.execute(query.encode()).fetchall() == [("77MB",)]
    finally:
        server.cleanup()
