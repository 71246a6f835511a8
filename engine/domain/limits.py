"""Every bound the engine keeps, by name, and the relations between them, asserted once."""

from typing import Final

SLOT_MINUTES: Final = 30
SLOT_MS: Final = SLOT_MINUTES * 60_000

SLOT_CAPACITY_MAX: Final = 9_999
SESSIONS_PER_DAY_MAX: Final = 3

HOLD_SECONDS_DEFAULT: Final = 15 * 60
HOLD_SECONDS_MAX: Final = 60 * 60
OFFER_SECONDS_MAX: Final = 7 * 86_400  # a seat kept for somebody whose session was called off
GROUP_MAX: Final = 6  # a family that books together
SEATS_ADDED_MAX: Final = 100  # in one command
WISH_SCHEDULES_MAX: Final = 60  # days of doctors that one wish may wait at
WISH_DAYS_MAX: Final = 31  # from the first day that would do to the last
COMMANDS_REMEMBERED: Final = 64  # changes of a day whose retry finds its first answer
CHANGE_CLAIM_MS: Final = 30 * 86_400_000  # how long it is remembered that a change was given up
HOLD_CLAIM_GRACE_MS: Final = 2_000  # a claim outlives its hold by this: clocks of shard and database differ

ROOM_COMMANDS_REMEMBERED: Final = 4_096  # of one department's day: all of them, as a rule
CALLS_KEPT: Final = 512  # that a screen may lag behind; then it is told the whole state
STAGES_MAX: Final = 16  # of one patient's journey through a waiting room
TICKET_NUMBER_MAX: Final = 9_999
EMERGENCY_LEVELS: Final = 4
MOVED_MAX: Final = 999  # people that one may be put behind

BILL_FEN_MAX: Final = 100_000_000  # a million yuan
BILL_LINES_MAX: Final = 200
BILL_PAYMENTS_MAX: Final = 20  # attempts: somebody who changes his mind
PAYMENT_REFUNDS_MAX: Final = 50  # of one payment: what WeChat Pay allows
BILL_COMMANDS_REMEMBERED: Final = 256

ANSWER_MS_MAX: Final = 2_000  # the user's two seconds: the deadline of every call
BATCH_COMMANDS_MAX: Final = 256  # commands in one message from a gateway to a shard
FLUSH_ENTRIES_MAX: Final = 512  # events in one transaction
COURIER_QUEUE_MAX: Final = 2_048  # commands that wait at one gateway for one shard
SHARD_MAILBOX_MAX: Final = 4_096  # commands that wait at one shard
ADMITTED_MAX: Final = 512  # bookings under way at one gateway; more are refused at once
REQUESTS_MAX: Final = 256  # patients' requests under way at one gateway, besides bookings
PAYMENTS_MAX: Final = 64  # payments being begun or looked up at one gateway: each may wait for its provider
FEED_CHANGES_MAX: Final = 4_096  # flushes a gateway may lag behind before it reads everything anew

BODY_BYTES_MAX: Final = 16 * 1024
NAME_CHARS_MAX: Final = 64
IDEMPOTENCY_KEY_CHARS_MAX: Final = 128
NUMBER_MAX: Final = 2**63 - 1  # of versions and cursors: what PostgreSQL and msgpack hold

assert HOLD_SECONDS_DEFAULT <= HOLD_SECONDS_MAX
assert BATCH_COMMANDS_MAX <= FLUSH_ENTRIES_MAX
assert ADMITTED_MAX <= COURIER_QUEUE_MAX <= SHARD_MAILBOX_MAX
assert ANSWER_MS_MAX < HOLD_SECONDS_DEFAULT * 1000
