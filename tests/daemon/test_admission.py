"""The door: who is a stranger has little time, and the oldest makes room."""

import trio

from ssfs.daemon.admission import Door


async def _stand(door: Door, name: str, gone: list[str], deadline_s: float = 10) -> None:
    with door.half_open(deadline_s):
        await trio.sleep_forever()
    gone.append(name)


async def test_a_stranger_is_sent_away_at_the_deadline(autojump_clock, nursery):
    door, gone = Door(5), []
    nursery.start_soon(_stand, door, "slow", gone)
    await trio.sleep(9.9)
    assert gone == []
    await trio.sleep(0.2)
    assert gone == ["slow"]


async def test_too_many_drive_out_the_oldest(autojump_clock, nursery):
    door, gone = Door(3), []
    for number in range(5):
        nursery.start_soon(_stand, door, f"{number}", gone)
        await trio.sleep(0.1)
    assert gone == ["0", "1"]


async def test_who_is_known_has_no_deadline_and_no_place_at_the_door(autojump_clock, nursery):
    door, gone = Door(1), []

    async def become_known() -> None:
        with door.half_open(10) as scope:
            door.known(scope)
            await trio.sleep(1000)
        gone.append("known, cut short" if scope.cancelled_caught else "known")

    nursery.start_soon(become_known)
    await trio.sleep(0.1)
    for number in range(3):
        nursery.start_soon(_stand, door, f"{number}", gone)
        await trio.sleep(0.1)
    assert gone == ["0", "1"]
    await trio.sleep(1000)
    assert gone == ["0", "1", "2", "known"]


async def test_whoever_leaves_makes_room(autojump_clock, nursery):
    door, gone = Door(1), []
    with door.half_open(10):
        pass
    nursery.start_soon(_stand, door, "next", gone)
    await trio.sleep(5)
    with door.half_open(10) as scope:
        await trio.sleep(0.1)
        assert gone == ["next"]
    assert not scope.cancelled_caught


async def test_fewer_may_stand_there_from_now_on(autojump_clock, nursery):
    door, gone = Door(2), []
    for name in ("one", "two"):
        nursery.start_soon(_stand, door, name, gone)
        await trio.sleep(0.1)
    door.most = 1
    with door.half_open(10):
        await trio.sleep(0.1)
        assert gone == ["one"]
