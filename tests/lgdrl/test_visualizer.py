"""The window, driven by key, button and mouse events as a person makes them, on a clock that needs no waiting."""

import threading
import time
from dataclasses import replace

import numpy as np
import pygame
import pytest

import sim
from experts import registry
from experts.data.episodes import load_episodes
from experts.human import Hands, HeldInput, HumanExpert, action_of
from experts.provider import Context, Decision, PolicyProvider, Status
from experts.serving.fault_server import FaultServer, Scripted
from lgdrl.config import RunConfig, load_config
from lgdrl.runs import Run
from lgdrl.training import resume, start
from lgdrl.visualizer.app import App, WindowOptions, open_window
from lgdrl.visualizer.clock import RealClock, VirtualClock
from lgdrl.visualizer.controls import Command, keymap
from lgdrl.visualizer.drivers import queried_in_training
from lgdrl.visualizer.film import FPS, FilmStyle, frames
from lgdrl.visualizer.scripted import ScriptedPerson, post_key
from lgdrl.visualizer.session import DriveSession, ReplaySession
from lgdrl.visualizer.training import TrainSession
from sim.actions import MetaAction
from sim.errors import UsageError

SIZE = (640, 400)


@pytest.fixture(autouse=True)
def _no_display(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    yield
    pygame.display.quit()


def drive(hands=None, expert="rule", autopilot="expert", scenario="lane-change", **config):
    env = sim.make(scenario, config=config)
    adviser = registry.make(expert, scenario) if isinstance(expert, str) else expert
    return DriveSession(env, None, adviser, autopilot, hands, "test")


def open_app(sessions, clock=None, person=None, **options):
    sessions = sessions if isinstance(sessions, list) else [sessions]
    open_window(SIZE)
    return App(sessions, WindowOptions(**({"draw_every": 8} | options)), keymap(), clock or VirtualClock(), person)


def run_until(app, done, most=3000):
    for _ in range(most):
        if done():
            return
        app.frame()
    raise AssertionError("it never happened")


def tap(app, key, unicode=""):
    post_key(key, unicode=unicode)
    app.frame()
    post_key(key, down=False)
    app.frame()


def track(app, k=0):
    return app.panes[k].session.track


# --- driving ---------------------------------------------------------------------------------------------------------


def test_a_key_takes_over_and_enter_hands_back():
    hands = Hands()
    app = open_app(drive(hands))
    run_until(app, lambda: app.length == 2)
    tap(app, pygame.K_LEFT)
    run_until(app, lambda: app.length == 4)
    tap(app, pygame.K_RETURN)
    run_until(app, lambda: app.length == 6)
    turns = track(app).turns
    assert [turn.controller for turn in turns] == ["expert", "expert", "human", "human", "expert", "expert"]
    assert [turn.action for turn in turns[2:4]] == [MetaAction.SLOWER, MetaAction.IDLE]
    assert 0 <= turns[2].reaction_s < 1
    assert turns[3].reaction_s is None
    assert all(turn.expert_status == "ok" for turn in turns)
    app.close()


def test_a_held_key_counts_at_every_decision():
    hands = Hands()
    app = open_app(drive(hands, autopilot="human"))
    post_key(pygame.K_LEFT)
    run_until(app, lambda: app.length == 3)
    post_key(pygame.K_LEFT, down=False)
    run_until(app, lambda: app.length == 5)
    actions = [turn.action for turn in track(app).turns]
    assert actions[1:3] == [MetaAction.SLOWER] * 2
    assert actions[-1] == MetaAction.IDLE
    app.close()


def test_only_the_first_of_two_drivers_can_be_taken_over():
    hands = Hands()
    app = open_app([drive(hands), drive()])
    run_until(app, lambda: app.length == 1)
    tap(app, pygame.K_LEFT)
    run_until(app, lambda: app.length == 3)
    assert track(app, 0).turns[1].controller == "human"
    assert {turn.controller for turn in track(app, 1).turns} == {"expert"}
    app.close()


def test_with_a_dead_man_switch_the_car_is_handed_back_when_nothing_is_held():
    hands = Hands(dead_man=True)
    app = open_app(drive(hands))
    run_until(app, lambda: app.length == 1)
    post_key(pygame.K_LEFT)
    run_until(app, lambda: app.length == 3)
    post_key(pygame.K_LEFT, down=False)
    run_until(app, lambda: app.length == 5)
    controllers = [turn.controller for turn in track(app).turns]
    assert controllers[1:3] == ["human", "human"]
    assert controllers[-1] == "expert"
    app.close()


def test_continuous_environments_are_steered_with_keys():
    hands = Hands()
    session = drive(hands, expert=None, autopilot="human", scenario="parking-v0")
    app = open_app(session)
    post_key(pygame.K_RIGHT)
    run_until(app, lambda: app.length == 2)
    post_key(pygame.K_LEFT)  # both pedals at once
    run_until(app, lambda: app.length == 4)
    post_key(pygame.K_RIGHT, down=False)
    post_key(pygame.K_LEFT, down=False)
    run_until(app, lambda: app.length == 6)
    actions = [turn.action.tolist() for turn in track(app).turns]
    assert [actions[1], actions[3], actions[5]] == [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    app.close()


def test_illegal_input_becomes_idle():
    space, legal = sim.make("lane-change").action_space, np.array([False, True, True, True, True])
    hands = Hands()
    hands.press("key", HeldInput(MetaAction.LANE_LEFT), 1.0)
    assert action_of(hands.take(), space, tuple(MetaAction), legal) == MetaAction.IDLE


def test_a_person_keeps_the_experts_contract():
    hands, env = Hands(), sim.make("lane-change")
    obs, _ = env.reset(seed=0)
    context = Context(obs, env.action_space, env.scene(), env.action_masks())
    person = HumanExpert(hands)
    assert person.decide([context])[0].status is Status.FAILED
    hands.show(10.0)
    hands.press("key", HeldInput(MetaAction.FASTER), 10.4)
    decision = person.decide([context])[0]
    assert (decision.action, decision.status) == (MetaAction.FASTER, Status.OK)
    assert decision.latency_s == pytest.approx(0.4)


# --- time ------------------------------------------------------------------------------------------------------------


def test_pause_holds_the_picture_and_a_step_makes_one_decision():
    app = open_app(drive())
    run_until(app, lambda: app.length == 2)
    tap(app, pygame.K_SPACE)
    head = app.playback.head
    for _ in range(120):
        app.frame()
    assert app.playback.paused
    assert app.playback.head == head
    tap(app, pygame.K_PERIOD)
    run_until(app, lambda: app.playback.step_to is None)
    assert app.playback.head == int(head) + 1
    tap(app, pygame.K_COMMA)
    assert app.playback.head == int(head)
    app.close()


def test_pace_changes_simulated_time_not_the_decisions():
    slow, quick = open_app(drive(), seed=5, episodes=1), open_app(drive(), seed=5, episodes=1, pace=16.0)
    counts = []
    for app in (slow, quick):
        count = 0
        while app.running:
            app.frame()
            count += 1
        counts.append(count)
    assert [t.action for t in track(slow).turns] == [t.action for t in track(quick).turns]
    assert counts[0] > 5 * counts[1]
    slow.close()


def test_a_typed_seed_starts_its_episode():
    app = open_app(drive())
    tap(app, pygame.K_g)
    for digit in "40":
        tap(app, getattr(pygame, f"K_{digit}"), digit)
    tap(app, pygame.K_x, "x")
    assert "not a digit" in app.message.text
    tap(app, pygame.K_BACKSPACE)
    tap(app, pygame.K_2, "2")
    tap(app, pygame.K_RETURN)
    assert app.seed == 42
    env = sim.make("lane-change")
    env.reset(seed=42)
    assert track(app).scene(0).vehicles.x.tolist() == env.scene().vehicles.x.tolist()
    app.close()


def test_the_timeline_can_be_scrubbed():
    app = open_app(drive())
    run_until(app, lambda: app.length == 6)
    app.draw()
    left, width, count = app.view.timeline.span
    x, y = left + width * 3 // count, app.view.strip.centery
    pygame.event.post(pygame.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=(x, y)))
    app.frame()
    pygame.event.post(pygame.Event(pygame.MOUSEBUTTONUP, button=1, pos=(x, y)))
    app.frame()
    assert app.playback.head == pytest.approx(3, abs=0.2)
    assert app.playback.paused
    assert app.length == 6
    app.close()


# --- recordings ------------------------------------------------------------------------------------------------------


def test_films_have_the_size_and_pace_that_they_are_asked_for():
    session = drive(expert="faster")
    session.begin(3)
    while not session.track.outcome:
        session.ask_expert()
        session.act()
    usual, small = list(frames(session.track)), list(frames(session.track, FilmStyle("dark", (640, 200), pace=2.0)))
    assert (usual[0].shape, small[0].shape) == ((320, 1280, 3), (200, 640, 3))
    held = FPS  # the last scene
    assert len(usual) - held == 2 * (len(small) - held) > 0


def test_a_replay_is_frame_identical_to_what_was_recorded(tmp_path):
    hands = Hands()
    app = open_app(drive(hands, time_limit=10), save=tmp_path, episodes=1, pace=16.0, seed=8)
    run_until(app, lambda: app.length == 2)
    tap(app, pygame.K_LEFT)
    run_until(app, lambda: not app.running)
    app.close()
    (path,) = app.recorder.saved
    replay = ReplaySession(load_episodes(path))
    live, again = track(app), replay.track
    assert [turn.controller for turn in again.turns] == [turn.controller for turn in live.turns]
    small = FilmStyle(size=(320, 160))
    assert all(np.array_equal(a, b) for a, b in zip(frames(live, small), frames(again, small), strict=True))


def test_an_episode_is_filmed_beside_the_window(tmp_path):
    app = open_app(drive(expert="faster", time_limit=2), outputs=tmp_path, episodes=1, pace=16.0)
    run_until(app, lambda: app.over)
    tap(app, pygame.K_e)
    assert "Filming" in app.message.text
    app.close()
    assert app.message.text.startswith("Film: ") or "imageio" in app.message.text


def test_recordings_are_never_overwritten(tmp_path):
    for _ in range(2):
        app = open_app(drive(expert="faster"), save=tmp_path, episodes=1, pace=16.0)
        run_until(app, lambda app=app: not app.running)
        app.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episode-0001-seed-0.npz", "episode-0002-seed-0.npz"]


def test_replays_are_shown_and_cannot_be_driven(tmp_path):
    app = open_app(drive(), save=tmp_path, episodes=1, pace=16.0)
    run_until(app, lambda: not app.running)
    app.close()
    app = open_app(ReplaySession(load_episodes(tmp_path)))
    tap(app, pygame.K_UP)
    assert "recording" in app.message.text
    app.playback.pace = 16.0
    run_until(app, lambda: app.playback.head == app.length > 10)
    app.close()


def test_a_scripted_person_drives_by_pressing_keys():
    hands = Hands()
    app = open_app(drive(hands, autopilot="human"), person=ScriptedPerson(registry.make("rule", "lane-change")),
                   pace=2.0, seed=100, episodes=1)  # fmt: skip
    run_until(app, lambda: not app.running)
    turns = track(app).turns
    assert track(app).outcome == "success"
    assert {turn.controller for turn in turns} == {"human"}
    assert [turn.action for turn in turns] == [turn.expert_action for turn in turns]
    app.close()


# --- window ----------------------------------------------------------------------------------------------------------


def test_two_drivers_on_one_seed():
    app = open_app([drive(), drive(expert="slower")], seed=3, pace=16.0, episodes=1)
    run_until(app, lambda: app.over)
    assert len(track(app, 0)) != len(track(app, 1)) or track(app, 0).outcome != track(app, 1).outcome
    assert track(app, 0).scene(0).ego == track(app, 1).scene(0).ego
    app.close()


@pytest.mark.parametrize("size", [(800, 480), (1280, 720), (3840, 2160)])
def test_the_layout_fills_every_size(size):
    app = open_app(drive(), draw_every=1)
    pygame.display.set_mode(size, pygame.RESIZABLE)
    pygame.event.post(pygame.Event(pygame.VIDEORESIZE, size=size, w=size[0], h=size[1]))
    app.frame()
    assert app.view.canvas.get_size() == size
    assert app.view.sides[0].right == size[0]
    assert app.view.strip.bottom == size[1]
    assert app.view.roads[0].width + app.view.sides[0].width == size[0]
    app.close()


def test_every_command_has_words_and_does_not_fail(tmp_path):
    hands = Hands()
    app = open_app(drive(hands), outputs=tmp_path, draw_every=1)
    for _ in range(40):
        app.frame()
    for command in Command:
        if command in (Command.QUIT, Command.EXPORT):
            continue
        app.devices.command(command, "test")
        app.devices.command(command, "test", down=False)
        app.seed_entry.text = None
        app.frame()
    assert len(list(tmp_path.glob("*.png"))) == 1
    app.close()


class Blocked(PolicyProvider):
    """An expert that thinks until it is told to stop, as a language model may."""

    name = "blocked"

    def __init__(self):
        self.release, self.asked = threading.Event(), threading.Event()

    def decide(self, contexts):
        self.asked.set()
        self.release.wait(30)
        return [Decision(action=1, reason="at last")]


def test_a_slow_expert_never_freezes_the_window():
    hands, expert = Hands(), Blocked()
    app = open_app(drive(hands, expert=expert), clock=RealClock())
    assert expert.asked.wait(30)
    for _ in range(30):
        app.frame()
    assert app.length == 0
    tap(app, pygame.K_LEFT)
    run_until(app, lambda: app.length == 1)
    assert track(app).turns[0].controller == "human"
    assert track(app).turns[0].expert_status is None
    expert.release.set()
    run_until(app, lambda: app.length >= 3)
    app.close()


def test_an_environment_without_an_expert_moves_in_a_real_window():
    hands = Hands()
    app = open_app(drive(hands, expert=None, autopilot="human"), clock=RealClock(), pace=16.0)
    tap(app, pygame.K_LEFT)
    run_until(app, lambda: app.length >= 3)
    assert {turn.controller for turn in track(app).turns} == {"human"}
    assert track(app).turns[0].action == MetaAction.SLOWER
    app.close()


def test_what_breaks_in_a_session_is_raised():
    class Broken(PolicyProvider):
        name = "broken"

        def decide(self, contexts):
            raise UsageError("the expert is broken")

    app = open_app(drive(expert=Broken()), clock=RealClock())
    with pytest.raises(UsageError, match="the expert is broken"):
        app.run()


# --- rewards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["lane-change", "two-way-v0", "highway-fast-v0", "roundabout-v0", "parking-v0"])
def test_the_panel_takes_the_reward_apart(scenario):
    hands = Hands()
    discrete = scenario != "parking-v0"
    session = drive(hands, "random" if discrete else None, "expert" if discrete else "human", scenario)
    hands.press("key", HeldInput(MetaAction.IDLE), 0.0)
    app = open_app(session, pace=16.0)
    hands.press("key", HeldInput(MetaAction.IDLE), 0.0)
    run_until(app, lambda: app.length >= 3 or track(app).outcome)
    turns = track(app).turns
    if scenario == "parking-v0":  # highway-env reports no terms there
        assert {turn.terms for turn in turns} == {None}
    elif scenario in ("lane-change", "two-way-v0"):
        assert [sum(turn.terms.values()) for turn in turns] == pytest.approx([turn.reward for turn in turns])
    else:  # rescaled by the environment: f(sum of terms), rising
        pairs = sorted((sum(turn.terms.values()), turn.reward) for turn in turns)
        assert [reward for _, reward in pairs] == sorted(turn.reward for turn in turns)
    app.playback.head = 0.0
    app.draw()
    assert shown(app).terms == turns[0].terms
    app.close()


def test_terms_are_shown_only_where_there_is_room():
    app = open_app(drive(), draw_every=1)
    run_until(app, lambda: app.length == 2)
    app.playback.head, app.playback.paused = 0.5, True

    def picture(terms, height):
        state, area = replace(shown(app), terms=terms), pygame.Rect(0, 0, 300, height)
        surface = pygame.Surface(area.size)
        app.view.panel.draw(surface, area, state, "")
        return pygame.surfarray.array3d(surface)

    reward = shown(app).reward
    for height, room in ((700, True), (190, False)):
        same = np.array_equal(picture({"speed": reward}, height), picture({"lane_gained": reward}, height))
        assert same != room
    app.close()


# --- language models -------------------------------------------------------------------------------------------------

REASON = "The gap on the right is long enough and the car behind it is slow, so this is the moment to change."


def language_model(server, **options):
    client = {"base_url": server.url, "total_s": 60.0, "retries": 0}
    options = {
        "model": "scripted",
        "rung": "json_schema",
        "prompt": {"reasoning": "short"},
        "client": client,
        **options,
    }
    return registry.make("llm", "lane-change", options)


def shown(app):
    head = app.playback.head
    return app.panes[0].state_at(head, app.panes[0].scene_at(head))


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test-key-0123456789abcdef")


def test_the_panel_shows_a_reason_while_it_arrives(key):
    with FaultServer([Scripted(extra={"reason": REASON}, drip_s=0.02)], rungs=("json_schema",)) as server:
        app = open_app(drive(expert=language_model(server)), clock=RealClock(), draw_every=1)
        words, pictures = [], []
        while shown(app).assessment.expert is None or len(words) < 2:
            app.frame()
            state = shown(app)
            if state.saying and (not words or words[-1] != state.saying):
                assert state.assessment.expert is None
                words.append(state.saying)
                pictures.append(pygame.surfarray.array3d(app.view.canvas.subsurface(app.view.sides[0])))
        assert len(words) > 5
        assert all(REASON.startswith(each) for each in words)
        assert not np.array_equal(pictures[0], pictures[-1])
        decided = shown(app)
        assert (decided.saying, decided.assessment.expert.reason) == ("", REASON)
        app.close()


def test_a_stream_that_breaks_ends_in_its_status(key):
    broken = Scripted(extra={"reason": REASON}, drip_s=0.01, stream="cut")
    with FaultServer([broken], rungs=("json_schema",)) as server:
        app = open_app(drive(expert=language_model(server)), clock=RealClock(), draw_every=1)
        run_until(app, lambda: track(app).saying)
        run_until(app, lambda: app.length == 1)
        assert track(app).turns[0].expert_status == "fallback"
        assert "stream ended" in track(app).turns[0].expert_reason
        app.close()


def test_words_of_an_abandoned_query_are_not_shown_at_the_next_state(key):
    hands = Hands()
    with FaultServer([Scripted(extra={"reason": REASON}, drip_s=0.1)], rungs=("json_schema",)) as server:
        app = open_app(drive(hands, expert=language_model(server)), clock=RealClock())
        run_until(app, lambda: track(app).saying)
        tap(app, pygame.K_LEFT)
        run_until(app, lambda: app.length == 1)
        assert shown(app).saying == ""
        app.close()


def test_closing_the_window_does_not_wait_for_a_language_model(key):
    with FaultServer([Scripted(delay_s=30.0)], rungs=("json_schema",)) as server:
        app = open_app(drive(expert=language_model(server)), clock=RealClock())
        run_until(app, lambda: server.asked)
        pygame.event.post(pygame.Event(pygame.QUIT))
        begin = time.monotonic()
        app.run()
        assert time.monotonic() - begin < 5.0


def test_closing_in_mid_training_does_not_wait_either_and_saves_the_run(key, tmp_path):
    with FaultServer([Scripted(label="E")] * 3 + [Scripted(delay_s=30.0)], rungs=("json_schema",)) as server:
        llm = language_model(server)
        config = RunConfig(num_envs=1, steps=400, evaluate_every=0, strategy_options={"episodes": {"kind": "always"}})
        session = TrainSession(start(config, tmp_path / "run", llm, Hands()))
        app = open_app(session, clock=RealClock(), pace=16.0)
        run_until(app, lambda: len(server.asked) == 4)
        pygame.event.post(pygame.Event(pygame.QUIT))
        begin = time.monotonic()
        app.run()
        assert time.monotonic() - begin < 10.0
        assert session.trainer.loop.advisor.counts["fallback"] == 1
        resumed = resume(tmp_path / "run", language_model(server))
        assert resumed.loop.progress == 4
        resumed.close()


def test_the_panel_shows_what_is_said_during_training(key, tmp_path):
    with FaultServer([Scripted(extra={"reason": REASON}, drip_s=0.02)], rungs=("json_schema",)) as server:
        config = RunConfig(num_envs=1, steps=400, evaluate_every=0, strategy_options={"episodes": {"kind": "always"}})
        session = TrainSession(start(config, tmp_path / "run", language_model(server), Hands()))
        app = open_app(session, clock=RealClock(), pace=16.0)
        run_until(app, lambda: REASON.startswith(shown(app).saying or "?"))
        assert len(shown(app).saying) > 0
        app.close()


# --- training --------------------------------------------------------------------------------------------------------


def train_live(folder, hands, **changes):
    config = RunConfig(num_envs=1, steps=400, evaluate_every=0, log_every=50, **changes)
    return TrainSession(start(config, folder, hands=hands))


def test_a_person_intervenes_in_live_training_and_the_run_keeps_it(tmp_path):
    hands = Hands()
    session = train_live(tmp_path / "run", hands)
    app = open_app(session, pace=16.0)
    run_until(app, lambda: session.trainer.loop.progress >= 5)
    tap(app, pygame.K_LEFT)
    run_until(app, lambda: session.trainer.loop.progress >= 12)
    tap(app, pygame.K_RETURN)
    run_until(app, lambda: session.trainer.loop.progress >= 60)
    driven = session.arbiter.decisions
    assert 1 <= driven < 30
    pygame.event.post(pygame.Event(pygame.QUIT))
    app.run()
    trainer = resume(tmp_path / "run")
    assert trainer.loop.progress >= 60
    assert trainer.loop.model.replay.num_labelled > 0
    rows = trainer.loop.log._db.execute("SELECT COUNT(*) FROM queries WHERE reason = 'the person drives'").fetchone()
    assert rows[0] == driven
    assert (tmp_path / "run" / "metrics.csv").exists()
    trainer.close()


def test_training_goes_on_beside_a_real_window(tmp_path):
    session = train_live(tmp_path / "run", Hands())
    app = open_app(session, clock=RealClock(), pace=16.0)
    run_until(app, lambda: session.trainer.loop.progress >= 4)
    app.close()
    assert resume(tmp_path / "run").loop.progress == session.trainer.loop.progress >= 4


def test_a_finished_training_ends_the_window(tmp_path):
    config = RunConfig(num_envs=1, steps=30, evaluate_every=0, log_every=10)
    session = TrainSession(start(config, tmp_path / "run", hands=Hands()))
    app = open_app(session, pace=16.0)
    app.run()
    assert session.trainer.loop.progress == 30
    assert (tmp_path / "run" / "policy.zip").exists()


def test_a_decision_that_broke_off_is_not_saved(tmp_path, monkeypatch):
    session = train_live(tmp_path / "run", Hands())
    for _ in range(3):
        session.act()
    monkeypatch.setattr(session.trainer.loop.envs, "step_wait", lambda: 1 / 0)
    app = open_app(session, pace=16.0)
    with pytest.raises(ZeroDivisionError):
        app.run()
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.fixture(scope="module")
def guided_run(tmp_path_factory):
    """A run whose guidance log has the scene of every query."""
    folder = tmp_path_factory.mktemp("runs") / "guided"
    guidance = {"episodes": {"kind": "always"}, "arbiter": {"kind": "disagree"}}
    config = RunConfig(num_envs=1, steps=300, evaluate_every=0, log_scenes=1, strategy_options=guidance)
    trainer = start(config, folder)
    trainer.train()
    trainer.close()
    return Run(folder)


def test_the_queries_of_a_training_can_be_stepped_through(guided_run):
    session = queried_in_training(guided_run, load_config(guided_run.config, {}))
    app = open_app(session, draw_every=1)
    for k in range(3):
        tap(app, pygame.K_PERIOD)
        run_until(app, lambda: app.playback.step_to is None)
        state = shown(app)
        turn = track(app).turns[k + 1]
        assert (app.playback.head, state.controller, state.executed) == (k + 1, turn.controller, turn.action)
        assert (state.assessment.expert.reason, state.reward) == (turn.expert_reason, turn.reward)
        assert state.assessment.unsafe is not None
    tap(app, pygame.K_n)
    assert app.seed == 1
    assert track(app).turns[0].scene.time == 0.0
    app.close()


def test_what_the_learner_proposed_is_outlined_where_something_else_was_done(guided_run):
    session = queried_in_training(guided_run, load_config(guided_run.config, {}))
    app = open_app(session, draw_every=1)
    app.playback.paused = True
    k = next(k for k, turn in enumerate(track(app).turns) if turn.controller == "expert")
    app.playback.head = float(k)
    state = shown(app)
    assert state.assessment.learner_action != state.executed

    def picture(proposed):
        surface = pygame.Surface((400, 400))
        assessment = replace(state.assessment, learner_action=proposed)
        app.view.panel.draw(surface, surface.get_rect(), replace(state, assessment=assessment), "")
        return pygame.surfarray.array3d(surface)

    assert not np.array_equal(picture(state.assessment.learner_action), picture(None))
    assert np.array_equal(picture(state.executed), picture(None))
    app.close()


def test_the_timeline_marks_statuses_and_hand_overs():
    app = open_app(drive(), draw_every=1)

    def strip(decisions):
        surface = pygame.Surface((600, 44))
        app.view.timeline.draw(surface, surface.get_rect(), [(decisions, "")], 0.0, "")
        return pygame.surfarray.array3d(surface)

    plain = strip([("learner", "ok")] * 6)
    seen = []
    for status in ("repaired", "vetoed", "fallback", "late", "failed"):
        seen.append(strip([("learner", "ok")] * 3 + [("learner", status)] + [("learner", "ok")] * 2))
    assert all(not np.array_equal(a, b) for k, a in enumerate(seen) for b in [plain, *seen[:k]])
    assert np.array_equal(strip([("learner", None)] * 6), plain)
    handed = strip([("learner", "ok")] * 3 + [("human", None)] * 3)
    left, width, count = app.view.timeline.span
    x = left + width * 3 // count
    stripe = [tuple(app.view.theme.controller(name)) for name in ("learner", "human")]
    assert tuple(handed[x, 22]) not in stripe  # a line where the car changes hands
    assert [tuple(handed[x - 20, 22]), tuple(handed[x + 20, 22])] == stripe
    app.close()


def test_watching_changes_nothing_in_the_training(tmp_path):
    config = RunConfig(num_envs=1, steps=160, evaluate_every=0, log_every=40, learner_options={"learning_starts": 100})
    alone = start(config, tmp_path / "alone")
    alone.train()
    session = TrainSession(start(config, tmp_path / "watched", hands=Hands()))
    while not session.trainer.loop.progress >= 160:
        session.act()
    weights = zip(alone.loop.model.policy.parameters(), session.trainer.loop.model.policy.parameters(), strict=True)
    assert all((a == b).all() for a, b in weights)
    session.close()
    alone.close()
    assert (tmp_path / "watched" / "policy.zip").exists()
