"""What is said of a saga with branches: its story, its bars, what it waits for."""

from __future__ import annotations

from datetime import timedelta

from cli.tales import Tale
from engine.golden_sagas import abreast_done, abreast_waiting
from engine.harness import Play
from engine.shop import ORDER
from engine.test_gather import many
from kasaga.explain import WAITS_SHOWN, as_text, explain
from kasaga.timeline import as_text as story_text
from kasaga.timeline import decoder, timeline
from kasaga.ui.bars import SCALE, chart
from kasaga.wording import moment


def story(play: Play) -> str:
    entries = timeline(play.records)
    lines = story_text(entries, decoder(play.schemas), now=moment(play.now), payloads=False)
    play.evict()
    return "\n" + "\n".join(lines) + "\n"


def described(play: Play, later: float = 0) -> list[str]:
    now = moment(play.now) + timedelta(seconds=later)
    told = explain(Tale().row, play.state, [], now=now)
    play.evict()
    return as_text(told, decoder(play.schemas))


def test_the_story_names_branches_losers_and_blocks() -> None:
    assert (
        story(abreast_done())
        == """
   +0.000  ▶        abreast            started by /test
   +0.000  ✓ 2.1.1  inventory.reserve  done in 3.0 s
   +0.000  ✓ 2.2    payments.charge    done in 2.0 s
   +0.000  ✓ 1.1    mail.send          done in 1.0 s
   +3.000  ✓ 2.1.2  shipping.schedule  done in 1.0 s
   +4.000  ✓ 3      timeout 1 min      in time
   +4.000  ✓ 4.1.1  inventory.reserve  done in 1.0 s
   +4.000  ✓ 4.2    payments.charge    done in 2.0 s
   +4.000  ✗ 4.3    sleep 30 s         cut off
   +5.000  ✗ 4.1.2  shipping.schedule  outcome unknown after 1.0 s: its branch lost a race
   +6.000  ↶ 4.1.2  shipping.cancel    nothing to undo in 0 ms
   +6.000  ↶ 4.1.1  inventory.release  undone in 0 ms
   +6.000  ■        COMPLETED
"""
    )


def test_bars_stand_side_by_side() -> None:
    play = abreast_done()
    made = chart(timeline(play.records), moment(play.now))
    bars = {row.step: row.bars[0] for row in made.rows if row.kind == "command"}
    assert [bars[path].x for path in ("2.1.1", "2.2", "1.1")] == [0, 0, 0]
    assert bars["2.1.1"].width == SCALE / 2
    assert bars["4.1.1"].x == bars["4.2"].x > bars["2.1.2"].x
    play.evict()


def test_it_waits_for_everything_that_is_out() -> None:
    lines = [line for line in described(abreast_waiting()) if line.startswith("It waits")]
    assert len(lines) == 2
    assert "for mail.send (step 1.1), " in lines[0]
    assert "for payments.refund, which undoes step 4.2" in lines[1]


def test_a_block_says_until_when() -> None:
    play = abreast_waiting()
    del play.bodies[5:], play.records[5:]
    play.crash()
    lines = described(play)
    assert any("(step 3 is a timeout, if its block takes so long)" in line for line in lines)


def test_of_a_thousand_open_steps_the_first_are_named() -> None:
    play = many(1000)
    play.start(ORDER)
    lines = described(play)
    assert sum(line.startswith("It waits for inventory.reserve (step 1.") for line in lines) == WAITS_SHOWN
    assert f"And it waits for {1000 - WAITS_SHOWN} things more." in lines
    assert any("1.4 (inventory.reserve) and 996 others" in line for line in lines)


def test_the_last_attempt_of_a_step_whose_gather_has_failed_says_so() -> None:
    play = many(2)
    play.start(ORDER)
    play.refused("1.1")
    assert any("(step 1.2)" in line and "it is the last attempt" in line for line in described(play))
