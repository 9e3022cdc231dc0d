"""Faults to seed into cas, one at a time, each as an exact replacement of text, and a quick test that each turns red.

Every text to replace stands exactly once in its file: a change to the code that makes an entry here void is found out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STEPS = "tests/faults/test_steps.py::"
HALT = "tests/faults/test_halt_shapes.py::test_halt_stops_all_sending_at_once_whatever_it_is"
TRANSPORTS = "tests/test_transports.py::"
SEND = "tests/test_send.py::"
ENGINE = "tests/test_engine.py::"
CLUSTER = "tests/faults/test_cluster.py::"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A fault: in `file`, `old` becomes `new`, which `test` notices."""

    name: str
    file: str
    old: str
    new: str
    test: str

    def seed(self, root: Path) -> None:
        """Put the fault into a copy of the code."""
        path = root / "cas" / self.file
        text = path.read_text(encoding="utf-8")
        found = text.count(self.old)
        assert found == 1, f"{self.name}: the text to replace stands {found} times in cas/{self.file}, not once"
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


MUTATIONS = (
    Mutation(
        name="a file is not synced",
        file="transports/local.py",
        old="                self._synced(path, os.O_NOFOLLOW, os.fsync)\n",
        new="                pass\n",
        test=f"{STEPS}test_what_is_staged_is_on_disk_before_it_is_claimed[message]",
    ),
    Mutation(
        name="a staged folder is not synced",
        file="transports/transport.py",
        old="[*sorted(inboxes), *(folder for folder in folders if isinstance(folder, str))]",
        new="sorted(inboxes)",
        test=f"{STEPS}test_what_is_staged_is_on_disk_before_it_is_claimed[folder]",
    ),
    Mutation(
        name="a reservation is not synced",
        file="transports/transport.py",
        old="[*sorted(inboxes), *(folder for",
        new="[*(folder for",
        test=f"{STEPS}test_a_reservation_is_on_disk_before_its_message_is_claimed",
    ),
    Mutation(
        name="a claim is not synced",
        file="transports/attempt.py",
        old="    _sync(claimed, lambda item: (workshop(item.envelope.inbox),), transport)\n",
        new="",
        test=f"{STEPS}test_a_claim_is_on_disk_before_its_signature_is_published",
    ),
    Mutation(
        name="the inbox is not synced between signature and message",
        file="transports/attempt.py",
        old="    _sync(_well(signed), lambda item: (_claim_of(item).inbox,), transport)\n",
        new="",
        test=f"{STEPS}test_a_signature_is_on_disk_before_its_message_is_published",
    ),
    Mutation(
        name="the claim is not synced after the message left it",
        file="transports/attempt.py",
        old="    return (claim.inbox, claim.folder) if item.ours else (claim.inbox,)\n",
        new="    return (claim.inbox,)\n",
        test=f"{STEPS}test_a_message_is_on_disk_before_the_ledger_says_that_it_is_delivered[claim]",
    ),
    Mutation(
        name="a batch is not synced",
        file="transports/local.py",
        old="    if _c_syncfs(handle) != 0:\n",
        new="    if handle < 0:\n",
        test=f"{STEPS}test_a_large_batch_is_on_disk_before_it_is_claimed",
    ),
    Mutation(
        name="the message is published before its signature",
        file="transports/attempt.py",
        old="    _each(signed, lambda item: _publish_signature(item, transport, stop), transport)\n",
        new="    _each(items, lambda item: _publish_message(item, transport, stop), transport)\n"
        "    _each(signed, lambda item: _publish_signature(item, transport, stop), transport)\n",
        test=f"{STEPS}test_a_signature_is_on_disk_before_its_message_is_published",
    ),
    Mutation(
        name="the message is linked, not renamed",
        file="transports/local.py",
        old="                _rename_without_replacing(self.absolute(source), self.absolute(target))\n",
        new="                os.link(self.absolute(source), self.absolute(target))\n",
        test=f"{TRANSPORTS}test_a_claim_says_whether_its_message_is_published[local]",
    ),
    Mutation(
        name="HALT is not looked for between signature and message",
        file="transports/attempt.py",
        old="    _unless(stop)\n    item.asked = True\n",
        new="    item.asked = True\n",
        test=f"{HALT}[local-publish_signature-text]",
    ),
    Mutation(
        name="HALT is not looked for before the signature",
        file="transports/attempt.py",
        old="    _unless(stop)\n    await transport.publish_signature(",
        new="    await transport.publish_signature(",
        test=f"{HALT}[local-claim-text]",
    ),
    Mutation(
        name="HALT is not looked for first of all",
        file="commands.py",
        old="    _unless_halted(around)\n    if not plans:\n        return preparation.of_manifests(",
        new="    if not plans:\n        return preparation.of_manifests(",
        test="tests/test_apply.py::test_of_several_causes_the_most_telling_one_gives_the_exit_code",
    ),
    Mutation(
        name="HALT is not looked for while waiting",
        file="crew.py",
        old="            error = self._stop()\n",
        new="            error = None\n",
        test=f"{HALT}[sftp-waiting-text]",
    ),
    Mutation(
        name="a HALT that is a dangling link does not count",
        file="halt.py",
        old="            os.lstat(path)  # not `exists`, which is false for a dangling link\n",
        new="            os.stat(path)\n",
        test=f"{HALT}[local-before-dangling-link]",
    ),
    Mutation(
        name="any host key is accepted",
        file="transports/ssh.py",
        old="        del client, hostname\n        shown = ",
        new="        return\n        shown = ",
        test=f"{SEND}test_an_unknown_host_key_is_refused_at_once",
    ),
    Mutation(
        name="a reservation is not exclusive here",
        file="transports/local.py",
        old="os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW",
        new="os.O_CREAT | os.O_NOFOLLOW",
        test=f"{TRANSPORTS}test_a_name_is_reserved_for_one_identity[local]",
    ),
    Mutation(
        name="a reservation is not exclusive over SFTP",
        file="transports/sftp.py",
        old="wire.SFTP_FLAG_CREATE | wire.SFTP_FLAG_EXCL",
        new="wire.SFTP_FLAG_CREATE",
        test=f"{TRANSPORTS}test_a_name_is_reserved_for_one_identity[sftp]",
    ),
    Mutation(
        name="a name is reserved where a file stands",
        file="transports/transport.py",
        old='if await self.files.kind(f"{inbox}/{name}") or await',
        new="if False and await",
        test=f"{TRANSPORTS}test_a_name_under_which_something_stands_cannot_be_reserved",
    ),
    Mutation(
        name="the claim of another run is swept aside",
        file="transports/local.py",
        old="                os.rename(self.absolute(source), self.absolute(target))\n            except",
        new="                __import__('shutil').rmtree(self.absolute(target), ignore_errors=True)\n"
        "                os.rename(self.absolute(source), self.absolute(target))\n            except",
        test=f"{TRANSPORTS}test_of_two_who_claim_one_identity_the_second_goes_on_with_the_firsts[local]",
    ),
    Mutation(
        name="a receipt is taken for a claim",
        file="transports/transport.py",
        old="        state = ClaimState.PUBLISHED\n",
        new="        state = ClaimState.CLAIMED\n",
        test=f"{TRANSPORTS}test_a_message_that_the_receiver_took_away_stays_published[local]",
    ),
    Mutation(
        name="a message replaces what stands, here",
        file="transports/local.py",
        old="                _rename_without_replacing(self.absolute(source), self.absolute(target))\n",
        new="                os.replace(self.absolute(source), self.absolute(target))\n",
        test=f"{TRANSPORTS}test_a_foreign_message_is_not_replaced[local-file]",
    ),
    Mutation(
        name="a message replaces what stands, over SFTP",
        file="transports/sftp.py",
        old="        if await self.kind(target):\n            return False\n        try:\n",
        new="        try:\n",
        test=f"{TRANSPORTS}test_a_foreign_message_is_not_replaced[sftp-file]",
    ),
    Mutation(
        name="a foreign signature passes for ours",
        file="transports/transport.py",
        old="        if ours is not None and ours == theirs:\n",
        new="        if ours is not None:\n",
        test=f"{TRANSPORTS}test_a_foreign_signature_is_not_replaced[local-file]",
    ),
    Mutation(
        name="the ledger is not written before",
        file="batch.py",
        old="        self._intend()\n        self._settle()",
        new="        self._settle()",
        test=f"{STEPS}test_the_intent_is_on_disk_before_anything_moves",
    ),
    Mutation(
        name="delivered is said before the ledger has it",
        file="batch.py",
        old='        """Say what became of deliveries, once the ledger has it."""\n',
        new="        for event in finished:\n            self._emit(event)\n",
        test=f"{STEPS}test_what_the_ledger_does_not_take_is_not_said_to_be_delivered",
    ),
    Mutation(
        name="the mode is 0666",
        file="transports/local.py",
        old="flags, 0o644)",
        new="flags, 0o666)",
        test=f"{SEND}test_what_arrives_has_mode_0644_less_umask[002-420]",
    ),
    Mutation(
        name="no marker is written",
        file="failed_sends.py",
        old="    if event.outcome in (Outcome.FAILED, Outcome.UNKNOWN):\n",
        new="    if False:\n",
        test=f"{SEND}test_a_peer_that_is_not_there_is_tried_again_and_marked",
    ),
    Mutation(
        name="a lane is not sent by SEQUENCE",
        file="planner.py",
        old="        lane.sort(key=_sequence)\n",
        new="",
        test="tests/test_apply.py::test_a_conversation_arrives_by_sequence_whatever_its_position",
    ),
    Mutation(
        name="a clock that goes back gives earlier names",
        file="transports/attempt.py",
        old="max(previous, item.after)",
        new="previous",
        test="tests/faults/test_clock.py::test_names_rise_when_the_clock_jumps_between_two_sends",
    ),
    Mutation(
        name="what no retry can mend is tried again",
        file="batch.py",
        old="over = error.permanent or number",
        new="over = number",
        test=f"{SEND}test_an_unknown_host_key_is_refused_at_once",
    ),
    Mutation(
        name="names may hold two dots in a row",
        file="names.py",
        old='NAME.fullmatch(text) is not None and ".." not in text\n',
        new="NAME.fullmatch(text) is not None\n",
        test="tests/test_names.py",
    ),
    Mutation(
        name="names may hold a slash",
        file="names.py",
        old='NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)\n',
        new='NAME = re.compile(r"[A-Za-z0-9./_-]*", re.ASCII)\n',
        test="tests/test_names.py",
    ),
    Mutation(
        name="a claim's record may name any file",
        file="transports/transport.py",
        old=" or not is_canonical(name):\n",
        new=":\n",
        test=f"{TRANSPORTS}test_a_claim_that_was_tampered_with_is_refused",
    ),
    Mutation(
        name="a later attempt leaves what an earlier one staged",
        file="transports/attempt.py",
        old="(item.tried or item.resumed or item.repeatable):\n",
        new="not item.tried:\n",
        test="tests/faults/test_kill_server.py::test_or_a_retry_of_the_same_run_does[kill-sftp]",
    ),
    Mutation(
        name="what others staged is cleaned away",
        file="transports/transport.py",
        old='if prefix not in (STAGED, ASIDE) or rest.partition("-")[0] not in identities:\n',
        new="if prefix not in (STAGED, ASIDE):\n",
        test=f"{TRANSPORTS}test_cleaning_takes_what_was_staged_for_ones_own_deliveries_and_nothing_else[local]",
    ),
    Mutation(
        name="a worker that did not answer is taken to have done nothing",
        file="engine.py",
        old="orders.lose(missing.values(), error, asked=True)",
        new="orders.lose(missing.values(), error, asked=False)",
        test=f"{ENGINE}test_a_worker_whose_answer_is_lost_for_good_leaves_it_unknown",
    ),
    Mutation(
        name="a worker's report is believed as far as it can be read",
        file="engine.py",
        old="    told = {identity: replace(item) for identity, item in missing.items()}\n",
        new="    told = missing\n",
        test=f"{ENGINE}test_what_makes_no_sense_is_refused_and_never_said_to_be_delivered",
    ),
    Mutation(
        name="a worker logs in as whoever it is",
        file="engine.py",
        old="self.as_here(items[0].delivery.destination)",
        new="items[0].delivery.destination",
        test=f"{ENGINE}test_who_logs_in_by_default_is_who_does_so_here[processes]",
    ),
    Mutation(
        name="a worker passes by the HALT of its own machine",
        file="worker.py",
        old="if error := around.stop():",
        new="if (error := around.stop()) and not post:",
        test=f"{ENGINE}test_halt_where_a_worker_is_stops_the_whole_run[threads]",
    ),
    Mutation(
        name="a worker with another cas delivers",
        file="worker.py",
        old="if work.version == __version__:",
        new="if work.version:",
        test=f"{ENGINE}test_a_worker_with_another_cas_delivers_nothing",
    ),
    Mutation(
        name="what a worker that died had begun is forgotten",
        file="watchman.py",
        old="return bool(again)",
        new="return False",
        test=f"{CLUSTER}test_what_dask_runs_again_by_itself_may_be_there_although_the_second_worker_gets_nowhere",
    ),
    Mutation(
        name="a worker waits for who asks without end",
        file="watchman.py",
        old="if time.monotonic() - self._heard > PATIENCE:",
        new="if self._heard > time.monotonic():",
        test=f"{CLUSTER}test_a_worker_that_has_lost_who_asks_publishes_nothing_more[SIGSTOP]",
    ),
    Mutation(
        name="HALT reaches no worker before its patience ends",
        file="watchman.py",
        old="self._halted = True",
        new="self._halted = False",
        test=f"{CLUSTER}test_halt_reaches_a_worker_that_is_delivering_in_two_seconds[who asks]",
    ),
)
