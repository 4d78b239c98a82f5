"""What is said of a saga with branches: its story, its bars, what it waits for."""

from __future__ import annotations

from datetime import timedelta

from cli.tales import Tale
from engine.bodies import of
from engine.golden_sagas import abreast_done, abreast_waiting, chooses_still, chosen
from engine.harness import Play
from engine.shop import ORDER, Inventory, Order, Shipping
from engine.test_gather import many
from kasaga import SagaContext
from kasaga.explain import WAITS_SHOWN, as_text, explain
from kasaga.timeline import as_text as story_text
from kasaga.timeline import timeline
from kasaga.timeline_data import as_json, decoder
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


def test_the_story_tells_of_scopes() -> None:
    assert (
        story(chosen())
        == """
   +0.000  ▶    chooses            started by /test
   +0.000  ✓ 1  payments.charge    done in 1.0 s
   +1.000  ↶ 2  scope first way    undone: mail.send refused: no stamps
   +1.000  ✓ 3  inventory.reserve  done in 1.0 s
   +2.000  ✓ 4  scope              ended well
   +2.000  ✓ 5  shipping.schedule  done in 1.0 s
   +3.000  ✗ 6  mail.send          refused in 0 ms: OutOfStock: no stamps
   +3.000  ↶ 5  shipping.cancel    undone in 1.0 s
   +4.000  ↶ 3  inventory.release  undone in 1.0 s
   +5.000  ✓ 7  inventory.reserve  done in 1.0 s
   +6.000  ■    COMPLETED
"""
    )
    assert "… 2  scope first way    is being undone: mail.send refused: no stamps" in story(chooses_still())


def test_the_story_tells_of_scopes_that_are_cut_off() -> None:
    play = of(in_race)
    play.done("1.1.2")
    play.fire("1.2")
    assert "1.1.1  scope lost         cut off: its branch was ended" in story(play)
    play = of(in_race)
    play.ask("cancel")
    assert "cut off: cancelled by anna: why" in story(play)


async def in_race(ctx: SagaContext, order: Order) -> str:
    async def lost() -> None:
        async with ctx.scope("lost"):
            await ctx.use(Inventory).reserve(order)
            await ctx.use(Shipping).schedule(order)

    await ctx.race(lost(), ctx.sleep(5))
    return ""


def test_the_bars_tell_of_scopes() -> None:
    play = chosen()
    rows = {
        row.step: row for row in chart(timeline(play.records), moment(play.now)).rows if row.kind == "scope"
    }
    assert {step: [bar.look for bar in row.bars] for step, row in rows.items()} == {
        "2": ["undo"],
        "4": ["good"],
    }
    assert (rows["2"].text, rows["4"].tone) == ("undone: mail.send refused: no stamps", "good")
    play.evict()


def test_a_scope_as_data() -> None:
    play = chosen()
    told = [
        each for each in as_json(timeline(play.records), decoder(play.schemas)) if each["kind"] == "scope"
    ]
    assert [(each["name"], each["outcome"]) for each in told] == [
        ("scope first way", "undone"),
        ("scope", "ended well"),
    ]
    play.evict()


def test_a_scope_is_described() -> None:
    lines = described(chooses_still())
    assert "  progress  2 of 4 steps so far are done, undoing scope first way (step 2)" in lines
    assert "2     scope first way    undoing: mail.send refused: no stamps" in lines
    assert "4     scope              ended well" in lines
    play = of(in_race)
    lines = described(play)
    at = "at step 1.1.2 (inventory.reserve) and 1.2 (sleep), in scope lost (step 1.1.1)"
    assert any(line.endswith(at) for line in lines)
    play = of(in_race)
    play.ask("cancel")
    assert "1.1.1  scope lost         cut off" in described(play)


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
