"""Send deliveries: the rows are the queue, and each is sent until its receiver has taken it.

At least once: a worker that dies between sending and recording leaves a claim that runs out, and
another sends the same message under the same reference. The network is never called inside a
transaction, and threads that call it never touch the database.
"""

from alerts.delivery.requests import resend, send_on_commit, test_channel
from alerts.delivery.runs import deliver_due

__all__ = ["deliver_due", "resend", "send_on_commit", "test_channel"]
