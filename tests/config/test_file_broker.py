from pathlib import Path
from queue import Empty

import pytest
from kombu import Connection

from config.file_broker import Channel


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    (tmp_path / "messages").mkdir()
    options = {
        "data_folder_in": str(tmp_path / "messages"),
        "data_folder_out": str(tmp_path / "messages"),
        "control_folder": str(tmp_path / "control"),
    }
    return Connection(transport="config.file_broker:Transport", transport_options=options)


def test_messages_come_in_order_once_and_by_queue(connection: Connection, tmp_path: Path) -> None:
    channel = connection.channel()
    assert isinstance(channel, Channel)
    for number in range(3):
        channel._put("ingest", {"number": number})
    channel._put("alerts", {"number": 9})
    assert [channel._get("ingest")["number"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Empty):
        channel._get("ingest")
    assert channel._size("alerts") == 1
    assert channel._get("alerts") == {"number": 9}
    assert list((tmp_path / "messages").iterdir()) == []
    connection.release()


def test_a_message_in_writing_is_not_seen(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "messages" / "1_a.ingest.msg.draft").write_text("")
    channel = connection.channel()
    assert isinstance(channel, Channel)
    with pytest.raises(Empty):
        channel._get("ingest")
    assert channel._size("ingest") == 0
    connection.release()
