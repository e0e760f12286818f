"""The table of states, and its image in PROTOCOL.md."""

import subprocess
import sys
from pathlib import Path

from ssfs.protocol.messages import CheckpointDone, NoSignature, Refused, SignaturePart
from ssfs.protocol.states import TRANSITIONS, Role, State, next_state

ROOT = Path(__file__).resolve().parents[2]


def test_page_has_the_table_of_the_code():
    command = [sys.executable, ROOT / "tools" / "protocol_table.py", "--check"]
    assert (
        subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False).returncode
        == 0
    )


def test_every_state_can_be_reached_and_left_but_the_last():
    reached = {after for rules in TRANSITIONS.values() for _, after in rules.values()}
    assert reached == set(State) - {State.START}
    assert [state for state, rules in TRANSITIONS.items() if not rules] == [State.CLOSED]


def test_server_may_refuse_wherever_it_has_something_to_say():
    for state, rules in TRANSITIONS.items():
        server_speaks = any(speaker is Role.SERVER for speaker, _ in rules.values())
        if server_speaks:
            assert next_state(state, Role.SERVER, Refused) is State.CLOSED


def test_late_answers_never_change_the_state():
    late = (SignaturePart, NoSignature, CheckpointDone)
    allowed = [
        state
        for state in State
        if all(next_state(state, Role.SERVER, kind) is state for kind in late)
    ]
    assert allowed == [State.TRANSFER, State.IN_FILE, State.FINISHING]
    for kind in late:
        assert [s for s in State if next_state(s, Role.SERVER, kind)] == allowed
