"""What is read once in a snapshot, and when it is read again."""

from tenants.scope import once_a_snapshot, tenant_scope
from tests.factories import Account


def test_a_snapshot_reads_once_and_the_next_one_again(account: Account, stranger: Account) -> None:
    asked: list[tuple[int, str]] = []

    @once_a_snapshot
    def read(tenant_id: int, *, name: str = "a") -> int:
        asked.append((tenant_id, name))
        return len(asked)

    ours, theirs = account.tenant.id, stranger.tenant.id
    for _ in range(2):
        asked.clear()
        with tenant_scope(ours, is_snapshot=True):
            assert read(ours) == read(ours) == 1
            with tenant_scope(theirs, is_snapshot=True):
                assert read(theirs) == 2
            assert [read(ours, name="b"), read(ours), read(theirs)] == [3, 1, 2]
    assert asked == [(ours, "a"), (theirs, "a"), (ours, "b")]
    with tenant_scope(ours):
        assert [read(ours), read(ours)] == [4, 5]
