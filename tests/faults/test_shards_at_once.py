"""Shards of one plan, delivered at once by processes that know nothing of each other, to hosts on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fleet import fleet
from harness import points, report
from support import Home, Run

HOSTS = points(200, 39)


def test_four_shards_at_once_deliver_exactly_the_plan_to_very_many_hosts(
    home: Home,
    cas: Callable[..., Run],
    cas_process: Callable[..., object],
    message: Callable[..., Path],
    tmp_path: Path,
):
    sent = message("hello.org").read_bytes()
    with fleet(tmp_path / "fleet", HOSTS) as targets:
        home.peers("".join(target.toml() for target in targets))
        sends = [{"id": "all", "destination": [target.destination for target in targets], "message": "hello.org"}]
        Path("m.yaml").write_text(json.dumps({"cas": 1, "defaults": {"sign": False}, "sends": sends}), encoding="utf-8")
        assert cas("plan", "m.yaml", "-o", "m.plan").code == 0

        processes = [
            cas_process("apply", "m.plan", "--shard", f"{n}/4", "--state-dir", f"state-{n}", "--output", "json")
            for n in range(1, 5)
        ]
        results = [json.loads(process.communicate(timeout=100)[0]) for process in processes]  # type: ignore[attr-defined]

        planned = json.loads(Path("m.plan").read_text(encoding="utf-8"))
        delivered = [one["id"] for result in results for one in result["deliveries"] if one["outcome"] == "delivered"]
        assert sorted(delivered) == sorted(one["id"] for one in planned["deliveries"])
        assert {result["plan"] for result in results} == {planned["digest"]}
        assert [[file.read_bytes() for file in target.inbox.glob("*.org")] for target in targets] == [[sent]] * HOSTS

        states = [f"state-{n}" for n in range(1, 5)]
        whole = cas("status", "--merge", *states, "--plan", "m.plan", "--detailed-exitcode")
        assert (whole.code, whole.out.splitlines()[-1]) == (0, "all of the plan is delivered")
        part_of_it = cas("status", "--merge", *states[:3], "--plan", "m.plan", "--detailed-exitcode")
        left = len(results[3]["deliveries"])
        assert (part_of_it.code, f"not delivered by any of them: {left}" in part_of_it.out) == (10, True)

        again = cas("apply", "m.plan", "--state-dir", "state-new", "--output", "json")
        assert json.loads(again.out)["counts"]["unchanged"] == HOSTS
    report("four shards at once", points=HOSTS)
